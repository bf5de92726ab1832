"""One KD run of ``rlkd distill``: its phases, its checkpoints and what it leaves in its folder."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch.utils.tensorboard import SummaryWriter

from agents.recording.history import RunHistory
from agents.recording.selection import StudentSelection
from agents.recording.tensorboard import TensorBoardCurves, agent_logger
from agents.recording.timing import PartTimer, TimedVectorEnv
from agents.recording.trace import InstanceTrace, TracedRewards
from agents.sb3.checkpoint import agent_state, load_agent_state, load_random_state, random_state
from agents.sb3.export import export_policy
from agents.sb3.make import continue_from, make_agent
from experiments.config import DistillConfig
from experiments.session.checkpoint import load_checkpoint, save_checkpoint
from experiments.session.choosers import fixed_temperature, frozen_policy, rule_to_act_around
from experiments.session.folder import (
    CHECKPOINT_FOLDER,
    CONFIG_FILE,
    HISTORY_FILE,
    LAST_STUDENT_FILE,
    STUDENT_FILE,
    TENSORBOARD_FOLDER,
    TRACE_FILE,
    clear_folder,
)
from experiments.session.interrupts import Interrupts
from experiments.session.progress import ProgressBar
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Policy
from rlkd_env.models.storage import save_network
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.files import write_json, write_tensors
from rlkd_env.utils.options import renamed
from rlkd_env.wrappers import CalibratedReward, EfficientExploration, ResidualAction, TemperatureAction
from rlkd_env.wrappers.calibrated_reward import check_calibrator


class RunInterrupted(Exception):  # noqa: N818 (not an error: the user's wish)
    """The user asked to stop, and everything has been saved."""


class _PhaseOver(Exception):  # noqa: N818 (not an error: a change of phase)
    """The agent has reached an epoch in which it does not learn, between two rollouts."""


class _Tracker(RunHook):
    """Knows how far the run came, also when an agent's environment has gone on to the next one."""

    def __init__(self) -> None:
        self.steps = 0
        self.diverged = torch.tensor(False)
        self.temperature_sum = torch.tensor(0.0, dtype=torch.float64)

    def on_step(self, run: DistillationRun, result: StepResult) -> None:
        self.steps = run.step_count
        self.diverged = result.diverged
        self.temperature_sum = self.temperature_sum.to(run.device) + result.temperature.student.mean()


class DistillSession:
    """A run with an agent, a saved policy or a rule at its temperatures.

    Everything is built and checked here; the folder is first touched by :meth:`execute`.

    Args:
        config: all options.
        run: the run that ``config.run`` describes.

    Attributes:
        timer: seconds by part: ``environment``, ``agent``, ``evaluation``, ``logging``, ``checkpoint``.
        selection: the students that are kept.
        history: figures of every epoch.
        trace: a sample of instances and their temperatures.
        warmup_seconds: seconds of the environment in the warm-up.
        cpu_seconds: of this process, all threads together, in :meth:`execute`; other processes do not disturb them.
        watchers: further hooks that watch the run; they must neither change it nor need a checkpoint.

    Raises:
        UsageError: if an option is invalid.
    """

    def __init__(self, config: DistillConfig, run: DistillationRun) -> None:
        self.config = config
        self.run = run
        self.folder = config.folder
        self.timer = PartTimer()
        self.selection = StudentSelection(self.timer)
        self.history = RunHistory(self.selection, self.timer)
        self.trace = InstanceTrace()
        self.warmup_seconds = 0.0
        self.cpu_seconds = 0.0
        self.watchers: list[RunHook] = []
        self._tracker = _Tracker()
        self._last_checkpoint = time.monotonic()
        self._interrupts = Interrupts()
        self._is_learning = False
        options = config.agent
        self._fixed = fixed_temperature(options, run)
        self._around = rule_to_act_around(options, run, config.output.seed)
        self._policy = frozen_policy(options, run, config.output.seed)
        self.agent: BaseAlgorithm | None = None
        self._calibrated: CalibratedReward | None = None
        self._slots = KDVectorEnv(run=run)
        self._env = self._wrap(self._slots)
        if self._policy is None:
            chosen: dict[str, Any] = {"bandit": options.bandit, "seed": config.output.seed, **options.agent_options}
            self.agent = make_agent(options.agent, self._env, **chosen)

    def _wrap(self, slots: KDVectorEnv) -> VectorEnv[Any, Any, Any]:
        """Put the wrappers that the options ask for around the run's slots."""
        options, exploration = self.config.agent, self.config.exploration.settings(self.run.recipe.epochs)
        check_calibrator(options.calibrator)  # an unknown name is told whether or not it is used
        env: VectorEnv[Any, Any, Any] = TimedVectorEnv(slots, self.timer)
        if self._policy is None and exploration is not None and exploration.first_epoch <= self.run.recipe.epochs:
            env = EfficientExploration(env, exploration)
        wrapped: TemperatureAction | ResidualAction
        if self._around is None:
            wrapped = TemperatureAction(env, options.temperature_scale)
        else:
            wrapped = ResidualAction(env, self._around, options.around_width)
        env, self._action_map = wrapped, wrapped.action_map
        if self._policy is None and options.calibrator != "uniform":
            self._calibrated = CalibratedReward(env, options.calibrator)
            env = TracedRewards(self._calibrated, self.trace)
        return env

    @property
    def warmup_steps(self) -> int:
        """Updates before an agent takes over, at the fixed temperature or its rule's; none before a policy or rule."""
        if self.agent is None:
            return 0
        return min(self.config.agent.warmup_epochs * self.run.steps_per_epoch, self.run.total_steps)

    def acting_policy(self) -> Policy:
        """Return what chooses temperatures as things stand, without learning."""
        if self.agent is not None:
            return export_policy(self.agent, self.run.state.names, self._action_map).to(self.run.device)
        return self.run.policy or self._policy or self._fixed

    @property
    def steps(self) -> int:
        """Updates that were made."""
        return self._tracker.steps

    @property
    def diverged(self) -> bool:
        """Whether the run ended because loss or logits were no longer finite."""
        return bool(self._tracker.diverged)

    @property
    def mean_temperature(self) -> float | None:
        """Mean over all updates and instances of the student's temperature; None where none had an effect so far."""
        has_any = self.steps > 0 and self.run.method.uses_temperature
        return float(self._tracker.temperature_sum) / self.steps if has_any else None

    def execute(self) -> None:
        """Make the whole run, or what is left of it, and write students and policy.

        Raises:
            RunInterrupted: after Ctrl-C, with everything saved.
            UsageError: if the checkpoint to resume from is damaged or belongs to another run.
        """
        self._cpu_clock = time.process_time()
        resumed = self._start()
        self._open_curves(resumed)
        bar = ProgressBar(self.run.total_steps, self.steps, self.selection, self.config.output.progress)
        curves = [] if self._curves is None else [self._curves]
        records: list[RunHook] = [self.selection, self.history, self.trace]
        watchers: list[RunHook] = [self._tracker, *records, *curves, bar, *self.watchers]
        if self._calibrated is not None:
            self._calibrated.pause()  # a look at every update costs time
        for watcher in watchers:
            self.run.add_hook(watcher)
        try:
            with self._interrupts.caught():
                self._warm_up()
                if self._policy is not None:
                    self._advance(self.run.policy or self._policy, self.run.total_steps)
                elif self.agent is not None:
                    self._act_and_learn(self.agent)
        finally:
            self._count_cpu_seconds()
            for watcher in watchers:
                self.run.remove_hook(watcher)
            bar.close()
            if self._writer is not None:
                self._writer.close()
        self.save_results()

    def save_results(self) -> None:
        """Write the students that are kept, the agent's policy, and what the run was like so far."""
        config, splits = self.config.run, self.run.splits
        card = (config.student_name, splits.num_classes, splits.image_shape, config.networks.student_options)
        if self.selection.best_student is not None:
            save_network(self.folder / STUDENT_FILE, self.selection.best_student, *card)
        if self.selection.last_student is not None:
            save_network(self.folder / LAST_STUDENT_FILE, self.selection.last_student, *card)
        if self.agent is not None:
            export_policy(self.agent, self.run.state.names, self._action_map).save(self.folder)
        self._write_records()

    def _write_records(self) -> None:
        write_json(self.folder / HISTORY_FILE, self.history.content())
        write_tensors(self.folder / TRACE_FILE, self.trace.tensors())

    def safe_point(self) -> None:
        """Save a checkpoint if one is due, and stop if the user asked for it; called where the state is consistent.

        Raises:
            RunInterrupted: after Ctrl-C.
        """
        due = time.monotonic() - self._last_checkpoint >= self.config.output.checkpoint_seconds
        if due or self._interrupts.stop_requested:
            with self.timer.part("checkpoint"):
                self._save_checkpoint()
        if self._interrupts.stop_requested:
            self.save_results()
            raise RunInterrupted

    def _start(self) -> bool:
        """Prepare the folder and the run; return whether it goes on from a checkpoint."""
        output = self.config.output
        checkpoint = load_checkpoint(self.folder / CHECKPOINT_FOLDER) if output.resume else None
        if checkpoint is not None:
            self._restore(checkpoint)
            return True
        clear_folder(self.folder)
        write_json(self.folder / CONFIG_FILE, self.config.settings())
        self.run.reset(output.seed)
        return False

    def _open_curves(self, resumed: bool) -> None:
        """Prepare TensorBoard's curves, of a run that goes on from where its checkpoint was taken."""
        self._writer: SummaryWriter | None = None
        self._curves: TensorBoardCurves | None = None
        if not self.config.output.tensorboard:
            return
        purge_step = self.steps + 1 if resumed else None
        self._writer = SummaryWriter(str(self.folder / TENSORBOARD_FOLDER), purge_step=purge_step)
        self._curves = TensorBoardCurves(self._writer, self.history, self.timer, self._calibration_figures)

    def _warm_up(self) -> None:
        before = self.timer.seconds["environment"]
        self._advance(self._fixed if self._around is None else self._around, self.warmup_steps)
        self.warmup_seconds += self.timer.seconds["environment"] - before

    def _advance(self, policy: Policy, end: int) -> None:
        """Step with a policy up to an update of the run, epoch by epoch."""
        while self.run.step_count < end and not self.diverged:
            self.safe_point()
            with self.timer.part("environment"):
                to_epoch_end = self.run.steps_per_epoch - self.run.step_count % self.run.steps_per_epoch
                self.run.advance(policy, min(to_epoch_end, end - self.run.step_count))

    def learns_now(self) -> bool:
        """Whether the agent learns in the epoch of the next update; else it acts as it is."""
        options, epoch = self.config.agent, self.run.epoch + 1
        since_warmup = epoch - self.warmup_steps // self.run.steps_per_epoch
        in_time = options.learn_last_epoch is None or epoch <= options.learn_last_epoch
        return in_time and since_warmup % options.learn_interval == 0

    def end_learning(self) -> None:
        """Take note that the agent's learning phase is over."""
        self._is_learning = False

    def _act_and_learn(self, agent: BaseAlgorithm) -> None:
        """Alternate between the agent's phases to the end of the run."""
        agent.set_logger(agent_logger(self._writer, self.run) if self._writer is not None else Logger(None, []))
        while self.steps < self.run.total_steps and not self.diverged:
            if self._is_learning or self.learns_now():
                if self._calibrated is not None:
                    self._calibrated.watch()
                self._learn(agent)
            else:
                if self._calibrated is not None:
                    self._calibrated.pause()
                policy = self.acting_policy()
                to_epoch_end = self.run.steps_per_epoch - self.run.step_count % self.run.steps_per_epoch
                self._advance(policy, self.run.step_count + to_epoch_end)

    def _learn(self, agent: BaseAlgorithm) -> None:
        """Let the agent act and learn to the end of the run, or to the first rollout of an epoch without learning."""
        if not self._is_learning:
            observation = self._slots.observe()
            continue_from(agent, observation)
            if self._calibrated is not None:
                self._calibrated.start_from(observation)
            self._is_learning = True
        timesteps = (self.run.total_steps - self.run.step_count) * self.run.batch_size
        with self.timer.part("agent"), suppress(_PhaseOver):
            agent.learn(timesteps, callback=_RunCallback(self), reset_num_timesteps=False, log_interval=1)

    def _calibration_figures(self) -> dict[str, float]:
        metrics = {} if self._calibrated is None else self._calibrated.metrics
        return {f"calibration/{name}": value for name, value in metrics.items()}

    def _count_cpu_seconds(self) -> None:
        now = time.process_time()
        self.cpu_seconds += now - self._cpu_clock
        self._cpu_clock = now

    def _save_checkpoint(self) -> None:
        self._count_cpu_seconds()
        self._last_checkpoint = time.monotonic()
        if self._writer is not None:
            self._writer.flush()  # what has been drawn before a checkpoint must survive a kill after it
        state = {
            "settings": self.config.settings(),
            "run": self.run.state_dict(),
            "selection": self.selection.state_dict(),
            "history": self.history.state_dict(),
            "trace": self.trace.state_dict(),
            "temperature_sum": self._tracker.temperature_sum,
            "agent": None if self.agent is None else agent_state(self.agent),
            "calibration": None if self._calibrated is None else self._calibrated.state_dict(),
            "random": random_state(),
            "seconds": dict(self.timer.seconds),
            "warmup_seconds": self.warmup_seconds,
            "cpu_seconds": self.cpu_seconds,
            "is_learning": self._is_learning,
        }
        self._write_records()
        save_checkpoint(self.folder / CHECKPOINT_FOLDER, state)

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        if renamed(checkpoint["settings"]) != self.config.settings():
            raise UsageError(f"the checkpoint in {self.folder} belongs to a run with other settings")
        self.run.load_state_dict(checkpoint["run"])
        self._tracker.steps = self.run.step_count
        self._tracker.temperature_sum = checkpoint["temperature_sum"]
        self.selection.load_state_dict(checkpoint["selection"])
        self.history.load_state_dict(checkpoint["history"], self.run.device)
        self.trace.load_state_dict(checkpoint["trace"])
        self.timer.seconds.update(checkpoint["seconds"])
        self.warmup_seconds = checkpoint["warmup_seconds"]
        self.cpu_seconds = checkpoint["cpu_seconds"]
        self._is_learning = checkpoint["is_learning"]
        observation = self._slots.observe()
        if self._calibrated is not None:
            self._calibrated.load_state_dict(checkpoint["calibration"], observation)
        if self.agent is not None:
            load_agent_state(self.agent, checkpoint["agent"])
        load_random_state(checkpoint["random"])


class _RunCallback(BaseCallback):
    """Ends learning with the run, and brings the session to its safe points between rollouts."""

    def __init__(self, session: DistillSession) -> None:
        super().__init__()
        self._session = session
        self._epoch = session.run.epoch

    def _on_rollout_start(self) -> None:
        self._session.safe_point()
        if not self._session.learns_now():
            self._session.end_learning()
            raise _PhaseOver
        # On-policy agents write their log themselves; off-policy ones only when an episode ends, and this is one.
        if isinstance(self.model, OffPolicyAlgorithm) and self._session.run.epoch != self._epoch:
            self._epoch = self._session.run.epoch
            self.logger.dump(self.num_timesteps)

    def _on_step(self) -> bool:
        return not self.locals["dones"].any()
