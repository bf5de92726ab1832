"""What drives runs with an agent: a warm-up, and then phases in which the agent learns or only acts, in turn."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from agents.learned.network_policy import NetworkPolicy
from agents.learned.temperature_policy import TemperaturePolicy
from agents.recording.tensorboard import agent_logger
from agents.recording.timing import TimedVectorEnv
from agents.recording.trace import TracedRewards
from agents.rules.base import Rule
from agents.sb3.checkpoint import agent_state, load_agent_state
from agents.sb3.divergence import check_agent, noticing_divergence
from agents.sb3.export import export_policy, export_sampling_policy
from agents.sb3.make import continue_from
from agents.sb3.threads import HostThreads
from experiments.config import DistillConfig
from experiments.config.choice import AgentChoice
from experiments.session.phases.base import Phases, SafePoint
from experiments.session.records import Records
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.runs.parallel import ParallelRuns
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.settings import Exploration
from rlkd_env.wrappers import CalibratedReward, EfficientExploration, ResidualAction, TemperatureAction


class _PhaseOver(Exception):  # noqa: N818 (not an error: a change of phase)
    """The agent has reached, between two rollouts, an epoch in which it does not learn."""


class AgentPhases(Phases):
    """An agent sets the temperatures after a warm-up; it learns in some epochs and only acts in the others.

    One agent acts for all ``slots``, which may be those of several runs.
    """

    learns = True

    def __init__(self, config: DistillConfig, choice: AgentChoice, slots: KDVectorEnv, records: Records) -> None:
        super().__init__(slots.run if slots.num_runs == 1 else slots.runs, records)
        self._options, seed = config.agent, config.output.seed
        self._slots, self._template = slots, slots.template
        run = self._template
        self._calibrated: CalibratedReward | None = None
        around = choice.around(run, seed)
        self._warmup_policy = choice.warm_up.create(run, seed) if around is None else around
        exploration = config.exploration.settings(run.recipe.epochs)
        pauses = self._options.learn_interval > 1 or self._options.learn_last_epoch is not None
        steps = run.steps_per_epoch if pauses else None
        self.agent = choice.agent(self._wrap(choice, exploration, around), seed, steps)
        self._seed = seed
        self.warmup_steps = min(self._options.warmup_epochs * run.steps_per_epoch, run.total_steps)
        self._is_learning = False
        self.acting_policy()  # an agent that cannot act as asked is told of now

    def _wrap(
        self, choice: AgentChoice, exploration: Exploration | None, around: NetworkPolicy | Rule | None
    ) -> VectorEnv[Any, Any, Any]:
        """Put the wrappers that the options ask for around the run's slots."""
        env: VectorEnv[Any, Any, Any] = TimedVectorEnv(self._slots, self._records.timer)
        if exploration is not None and exploration.first_epoch <= self._template.recipe.epochs:
            env = EfficientExploration(env, exploration)
        wrapped: TemperatureAction | ResidualAction
        if around is None or choice.acts_around is None:
            wrapped = TemperatureAction(env, choice.scale)
        else:
            wrapped = ResidualAction(env, around, choice.acts_around.width, choice.acts_around.level)
        self._action_map = wrapped.action_map
        if self._options.calibrator == "uniform":
            return wrapped
        self._calibrated = CalibratedReward(wrapped, self._options.calibrator)
        self._calibrated.pause()  # in the warm-up, because its look at every update costs time
        return TracedRewards(self._calibrated, self._records.trace)

    def execute(self, safe_point: SafePoint) -> None:
        """Warm up, and then let the agent act and learn to the end of the run."""
        seconds, before = self._records.timer.seconds, self._records.timer.seconds["environment"]
        self._advance(self._warmup_policy, self.warmup_steps, safe_point)
        self.warmup_seconds += seconds["environment"] - before
        writer = self._records.writer
        self.agent.set_logger(Logger(None, []) if writer is None else agent_logger(writer, self._run))
        while self._records.steps < self._run.total_steps and not self._records.is_over:
            if self._is_learning or self.learns_now():
                if self._calibrated is not None:
                    self._calibrated.watch()
                self._learn(safe_point)
                if self._calibrated is not None:
                    self._calibrated.pause()
            else:
                self._advance(self.acting_policy(), self._run.step_count + self._to_epoch_end(), safe_point)

    def _learn(self, safe_point: SafePoint) -> None:
        """Let the agent act and learn to the end of the run, or to the first rollout of an epoch without learning."""
        if not self._is_learning:
            observation = self._slots.observe()
            continue_from(self.agent, observation)
            if self._calibrated is not None:
                self._calibrated.start_from(observation)
            self._is_learning = True
        timesteps = (self._run.total_steps - self._run.step_count) * self._slots.num_envs
        with (
            self._records.timer.part("agent"),
            suppress(_PhaseOver),
            noticing_divergence(self.agent),
            HostThreads(self._run.device) as threads,
        ):
            callbacks = [threads, _RunCallback(self, self._run, safe_point)]
            self.agent.learn(timesteps, callback=callbacks, reset_num_timesteps=False, log_interval=1)

    def learns_now(self) -> bool:
        """Return whether the agent learns in the epoch of the next update; otherwise it acts as it is."""
        options, epoch = self._options, self._run.epoch + 1
        since_warmup = epoch - self.warmup_steps // self._run.steps_per_epoch
        in_time = options.learn_last_epoch is None or epoch <= options.learn_last_epoch
        return in_time and since_warmup % options.learn_interval == 0

    @property
    def is_over(self) -> bool:
        """Whether the run ends here, before its schedule does."""
        return self._records.is_over

    def end_learning(self) -> None:
        """End the learning phase."""
        self._is_learning = False
        raise _PhaseOver

    def acting_policy(self) -> TemperaturePolicy:
        """Return the agent's policy as it is now: its mean, or if it acts by samples, its distribution."""
        if self._options.acting == "mean":
            return self.learned_policy().to(self._run.device)
        policy = export_sampling_policy(self.agent, self._run.state.names, self._action_map, self._seed)
        return policy.to(self._run.device)

    def learned_policy(self) -> TemperaturePolicy:
        """Return the agent's policy as it is now, without exploration noise, on the CPU."""
        return export_policy(self.agent, self._run.state.names, self._action_map)

    def scalars(self) -> dict[str, float]:
        """Return the latest figures of the calibration."""
        metrics = {} if self._calibrated is None else self._calibrated.metrics
        names = {"reward_spread": "spread", "loss": "decomposition_loss", "r2": "decomposition_r2"}
        return {f"reward/{names.get(name, name)}": value for name, value in metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the agent and the calibration."""
        return {
            "agent": agent_state(self.agent),
            "calibration": None if self._calibrated is None else self._calibrated.state_dict(),
            "is_learning": self._is_learning,
            **super().state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict` with the run restored."""
        observation = self._slots.observe()  # which also tells the slots that they need no reset
        if self._calibrated is not None:
            self._calibrated.load_state_dict(state["calibration"], observation)
        load_agent_state(self.agent, state["agent"])
        self._is_learning = state["is_learning"]
        super().load_state_dict(state)


class _RunCallback(BaseCallback):
    """Brings a run to its safe points between rollouts, and ends ``learn()`` with the phase or the run."""

    def __init__(self, phases: AgentPhases, run: DistillationRun | ParallelRuns, safe_point: SafePoint) -> None:
        super().__init__()
        self._phases, self._run, self._safe_point = phases, run, safe_point
        self._epoch = run.epoch

    def _on_rollout_start(self) -> None:
        check_agent(self.model)  # so that checkpoints hold agents that can go on
        self._safe_point()
        if self._phases.is_over or not self._phases.learns_now():
            self._phases.end_learning()
        # On-policy agents write their log themselves; off-policy agents do so only at an episode's end, and the whole
        # run is one episode.
        if isinstance(self.model, OffPolicyAlgorithm) and self._run.epoch != self._epoch:
            self._epoch = self._run.epoch
            self.logger.dump(self.num_timesteps)

    def _on_step(self) -> bool:
        return not self.locals["dones"].any()
