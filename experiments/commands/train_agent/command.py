"""``rlkd train-agent``: trains a policy on many runs and compares it with fixed temperatures on others."""

from __future__ import annotations

import sys
import time
from copy import deepcopy
from functools import cached_property
from typing import TYPE_CHECKING, Any

from agents.learned.evolution import CoefficientForm, Evolution, runs_of_candidates
from agents.recording.tensorboard import open_curves
from agents.sb3.coefficient_training import CoefficientTraining
from experiments.commands.train_agent.held_out import HeldOutRuns, print_held_out
from experiments.commands.train_agent.instances import Instance, InstanceSet, read_instance_set
from experiments.commands.train_agent.policy_figure import draw_policy
from experiments.config import TrainAgentConfig
from experiments.next_command import tell_next
from experiments.session.checkpoints import check_fingerprints, load_checkpoint, save_checkpoint
from experiments.session.folder import (
    CHECKPOINT_FOLDER,
    CONFIG_FILE,
    SUMMARY_FILE,
    TRAINING,
    check_folder,
    clear_folder,
    locked,
)
from experiments.session.provenance import versions
from experiments.signals import StopRequest, exit_code, tell_stop
from rlkd_env.envs.coefficient_env import CoefficientVectorEnv
from rlkd_env.errors import AgentDiverged, UsageError
from rlkd_env.instances.coefficients import CoefficientRule
from rlkd_env.instances.temperature import TemperatureRange
from rlkd_env.runs.fingerprints import fingerprints
from rlkd_env.runs.parallel import ParallelRuns, create_parallel_runs
from rlkd_env.runs.reward import RewardMeter
from rlkd_env.training.progress import progress_bar
from rlkd_env.utils.files import read_json, reading, remove_leftovers, write_json
from rlkd_env.utils.options import renamed

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVOLUTION = "cma"
_NEVER = 2**30  # reward interval of runs whose rewards are not used
_LEAST_TEMPERATURE, _GREATEST_TEMPERATURE = 1e-3, 1e3
_EVALUATED = 16  # held-out runs of an instance that are evaluated during training


def run_train_agent(config: TrainAgentConfig) -> int:
    """Train a policy, save it, and compare it on the held-out runs."""
    folder, output = config.folder, config.output
    check_folder(folder, output.overwrite, output.resume, TRAINING)
    if output.resume and (folder / SUMMARY_FILE).is_file():
        print(f"the training in {folder} has already finished")
        with reading(folder / SUMMARY_FILE):
            print_held_out(read_json(folder / SUMMARY_FILE)["held_out"])
        tell_next("rlkd", "distill", "--policy", str(folder))
        return 0
    session = TrainingSession(config, read_instance_set(config.training.instances))
    try:
        with locked(folder):
            check_folder(folder, output.overwrite, output.resume, TRAINING, holds_lock=True)
            session.train()
            session.finish()
    except KeyboardInterrupt as stop:
        tell_stop(
            f"interrupted after {session.training.generation} updates; continue from the last checkpoint with: "
            f"rlkd train-agent --resume --out {folder}"
        )
        return exit_code(stop)
    except AgentDiverged as error:
        print(
            f"rlkd: the agent diverged in update {session.training.generation + 1} ({error}), and would do so again: "
            "choose a lower learning_rate among --agent-options, with --overwrite",
            file=sys.stderr,
        )
        return 1
    finally:
        session.close()
    return 0


class TrainingSession:
    """A training with its checkpoints and curves. Creating it checks all options and writes nothing."""

    def __init__(self, config: TrainAgentConfig, instances: InstanceSet) -> None:
        self.config, self._options, self.folder = config, config.training, config.folder
        if not self._options.sweep:
            raise UsageError("the sweep needs at least one temperature")
        self._rule = CoefficientRule(self._options.coefficient_features)
        self._held_out = [HeldOutRuns(one, self._options.device, self._options.run_mode) for one in instances.held_out]
        self._sets = [self._runs(instance) for instance in instances.train]
        seeds = [instance.seeds for instance in instances.train]
        self.training = self._evolution(seeds) if self._options.agent == EVOLUTION else self._agent(seeds)
        self._seconds = 0.0

    def train(self) -> None:
        """Learn until the budget is used up, starting from the last checkpoint if there is one.

        Raises:
            Stopped: after an update at whose end a signal had asked to stop; there is a checkpoint of it.
        """
        resumed = self._start()
        writer = open_curves(self.folder, self._step + 1 if resumed else None)
        options, before, started = self._options, self._seconds, time.monotonic()
        saved, stop = started, StopRequest()
        is_hidden = not self.config.output.progress
        with (
            progress_bar("train-agent", "update", options.updates, not is_hidden, initial=self._step) as bar,
            stop.listening(),
        ):
            while not self._is_over() and not stop:
                metrics = self.training.update()
                self._seconds = before + time.monotonic() - started
                for name, value in metrics.items():
                    writer.add_scalar(f"training/{name}", value, self._step)
                if options.evaluation_interval and self._step % options.evaluation_interval == 0:
                    self._evaluate(writer)
                bar.update()
                bar.set_postfix({name: f"{value:.3f}" for name, value in metrics.items()}, refresh=False)
                if time.monotonic() - saved >= self.config.output.checkpoint_seconds:
                    writer.flush()  # curves before a checkpoint must survive a kill after it
                    self._save()
                    saved = time.monotonic()
        writer.close()
        self._save()
        if stop:
            raise stop.error()

    def finish(self) -> None:
        """Save the policy, compare it on the held-out runs and write the summary."""
        policy = self.training.policy()
        policy.save(self.folder)
        options, rows = self._options, []
        arms = len(self._held_out) * (len(options.sweep) + 2)
        with progress_bar("held out", "arm", arms, self.config.output.progress) as bar:
            for runs in self._held_out:
                on_device = deepcopy(policy).to(runs.template.device)
                rows.append(runs.compare(on_device, options.sweep, bar.update))
        for runs in self._held_out[:1]:
            on_device = deepcopy(policy).to(runs.template.device)
            draw_policy(on_device, runs.template, runs.instance.seeds.start, self.folder / "policy.png")
        summary = {
            "settings": self.config.settings(),
            "updates": self._step,
            "seconds": self._seconds,
            "held_out": rows,
            "versions": versions(),
        }
        write_json(self.folder / SUMMARY_FILE, summary)
        if rows:
            print_held_out(rows)
        told = f"{self._step} updates in {self._seconds:.0f} s"
        print(told)
        tell_next("rlkd", "distill", "--policy", str(self.folder))

    def close(self) -> None:
        """Stop the processes that compute the runs, if there are any."""
        for runs in self._sets:
            runs.close()
        for held_out in self._held_out:
            held_out.close()

    @property
    def _step(self) -> int:
        return self.training.generation

    @cached_property
    def _fingerprints(self) -> list[dict[str, str]]:
        """Hashes of teacher and data of every instance that is trained on."""
        return [fingerprints(runs.template.teacher, runs.template.splits) for runs in self._sets]

    def _is_over(self) -> bool:
        minutes = self._options.minutes
        return self._step >= self._options.updates or (minutes is not None and self._seconds >= 60.0 * minutes)

    def _runs(self, instance: Instance) -> ParallelRuns:
        """Create the runs of an instance with the rewards that the training needs."""
        options = self._options
        run = instance.build(options.probe_images, device=options.device, features=("progress",))
        run.temperature_range = TemperatureRange(_LEAST_TEMPERATURE, _GREATEST_TEMPERATURE)  # the rule has its own
        interval = _NEVER if options.agent == EVOLUTION else max(1, run.total_steps // options.decisions)
        run.reward = RewardMeter("log_probe_loss", interval)
        count = options.num_runs
        if options.agent == EVOLUTION:
            count = runs_of_candidates(count, options.population)
        return create_parallel_runs(run, count, options.run_mode)

    def _evolution(self, seeds: list[range]) -> Evolution:
        options = self._options
        form = CoefficientForm(options.form, self._rule)
        search = (options.population, options.initial_deviation, options.fitness, options.seed)
        return Evolution(self._sets, seeds, form, *search, options.penalty, options.instances_per_update)

    def _agent(self, seeds: list[range]) -> CoefficientTraining:
        options = self._options
        env = CoefficientVectorEnv(self._sets, self._rule, options.decisions, options.coefficient_scale)
        arguments: dict[str, Any] = dict(options.agent_options)
        return CoefficientTraining(options.agent, env, seeds, options.discount, arguments, options.seed)

    def _start(self) -> bool:
        """Prepare the folder and return whether the training continues from a checkpoint."""
        remove_leftovers(self.folder)
        checkpoint = load_checkpoint(self.folder / CHECKPOINT_FOLDER) if self.config.output.resume else None
        if checkpoint is None:
            clear_folder(self.folder, TRAINING)
            write_json(self.folder / CONFIG_FILE, self.config.settings())
            return False
        with reading(self.folder / CHECKPOINT_FOLDER):
            if renamed(checkpoint["settings"]) != self.config.settings():
                raise UsageError(f"the checkpoint in {self.folder} belongs to a training with other settings")
            for recorded, found in zip(checkpoint.get("fingerprints", []), self._fingerprints, strict=False):
                check_fingerprints(recorded, found, self.folder)
            self.training.load_state_dict(checkpoint["training"])
            self._seconds = checkpoint["seconds"]
        return True

    def _save(self) -> None:
        state = {
            "settings": self.config.settings(),
            "fingerprints": self._fingerprints,
            "training": self.training.state_dict(),
            "seconds": self._seconds,
            "run": {"step_count": self._step},
        }
        save_checkpoint(self.folder / CHECKPOINT_FOLDER, state)

    def _evaluate(self, writer: SummaryWriter) -> None:
        """Write the policy's validation accuracy on a few held-out runs to TensorBoard."""
        for runs in self._held_out:
            policy, seeds = self.training.policy().to(runs.template.device), list(runs.instance.seeds)[:_EVALUATED]
            accuracy = runs.accuracies(policy, runs.template.splits.validation, seeds).mean()
            writer.add_scalar(f"held_out/{runs.instance.name}/validation_accuracy", accuracy, self._step)
