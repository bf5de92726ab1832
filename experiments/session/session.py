"""One run from start to end: what drives it, what is recorded of it, and its checkpoints, in one folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from experiments.config import DistillConfig
from experiments.config.choice import AgentChoice
from experiments.session.checkpoints import RunInterrupted, SafePoints
from experiments.session.folder import (
    AGENT_FILE,
    BEST_STUDENT_FILE,
    CONFIG_FILE,
    LAST_STUDENT_FILE,
    STUDENT_FILE,
    check_folder,
    clear_folder,
    locked,
)
from experiments.session.objects import NO_OBJECTS, GivenObjects
from experiments.session.phases.base import Phases, PolicyPhases
from experiments.session.records import Records, Settings
from experiments.session.telling.tracking import TRACKERS, TrackedFigures
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.data import DataSource, ImageSet
from rlkd_env.errors import AgentDiverged, UsageError
from rlkd_env.instances.temperature import Policy
from rlkd_env.models.storage import save_network
from rlkd_env.runs.fingerprints import fingerprints
from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.parallel import ParallelRuns
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.choices import KeptEpoch, TrackerName
from rlkd_env.utils.files import remove_leftovers, write_json, write_tensors
from rlkd_env.utils.memo import Memo, NoMemo
from rlkd_env.utils.notices import tell

_MAIN_SETTINGS = (
    *("dataset", "method", "epochs", "batch_size", "learning_rate", "reward", "seed", "agent", "rule"),
    *("temperature_min", "temperature_max"),
)
"""Settings that TensorBoard shows of every run, beside those that are not as usual."""
_OF_AGENTS = ("around", "calibrator", "discount")
"""Those that it shows of every run with an agent, as without one they mean nothing."""


@dataclass(frozen=True, eq=False)
class KeptStudent:
    """A network on the run's device, its accuracy on the validation images, and the epoch that it is of, if one."""

    network: nn.Module
    accuracy: float
    epoch: int | None


class DistillSession:
    """A run with an agent, a saved policy or a rule at its temperatures.

    Everything is built and checked here; the folder is first touched by :meth:`execute`.

    ``teacher_accuracy`` is what the teacher reaches on the validation images, if that is known.
    ``trained`` is what makes the updates, here the run itself. ``watchers`` are further hooks; they must neither change
    the run nor need a checkpoint.
    """

    teacher_accuracy: float | None = None
    track: TrackerName | None = None
    tracked: TrackedFigures | None = None

    def __init__(
        self,
        config: DistillConfig,
        run: DistillationRun,
        source: DataSource,
        folder: Path | None,
        objects: GivenObjects = NO_OBJECTS,
        memo: Memo | None = None,
    ) -> None:
        self._memo = memo or NoMemo()
        self.config, self.run, self.source, self.folder, self.objects = config, run, source, folder, objects
        self.choice = objects.temperature or config.agent.choice
        config.agent.fixed.temperature(run)
        _ = CALIBRATORS[config.agent.calibrator]  # an unknown name is told even if no agent learns
        self.trained, self.records, self.phases = self._parts()
        self.safe_points = SafePoints(
            folder,
            config.output.checkpoint_seconds,
            config.settings(),
            {"run": self.trained, "records": self.records, "phases": self.phases},
            self.records.timer,
            lambda: self.fingerprints,
        )
        self.watchers: list[RunHook] = []

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of teacher and data."""
        options = self.config.run
        key = ("fingerprints", f"{options.data} {options.networks} on {self.run.device}")
        return self._memo.keep(key, lambda: fingerprints(self.run.teacher, self.run.splits))

    @property
    def settings(self) -> Settings:
        """What TensorBoard shows of the settings."""
        told, usual = self.config.settings(), type(self.config)().settings()
        of_agent = _OF_AGENTS if isinstance(self.choice, AgentChoice) else ()
        names = {*_MAIN_SETTINGS, *of_agent, *(name for name, value in told.items() if value != usual.get(name))}
        main = {name: told[name] for name in sorted(names) if name in told}
        return Settings(told, {"temperature_from": self.choice.label, "student_name": self.student_name, **main})

    def _parts(self) -> tuple[DistillationRun | ParallelRuns, Records, Phases]:
        """Create what is recorded of the run, and what drives it as the options ask; return both after it."""
        run, choice = self.run, self.choice
        records = Records(run, self.folder, self.config.output.patience)
        if isinstance(choice, AgentChoice):
            # They need stable-baselines3, which takes long to import.
            from experiments.session.phases.learning import AgentPhases
            from rlkd_env.envs.vector_env import KDVectorEnv

            return run, records, AgentPhases(self.config, choice, KDVectorEnv(run=run), records)
        policy = choice.policy(run, self.config.output.seed)
        return run, records, PolicyPhases(run, records, lambda: cast(Policy, run.policy or policy))

    def execute(self) -> None:
        """Make the whole run, or what is left of it, and write students and policy.

        Raises:
            RunInterrupted: after a signal that asked to stop; students, policy and checkpoint are written.
            AgentDiverged: if the agent's networks hold no usable numbers any more; the students are written.
        """
        self.records.start_clock()
        if self.folder is not None:
            remove_leftovers(self.folder)
        if self.track is not None:
            self.tracked = self._open_tracker(self.track)
            self.watchers.append(self.tracked)
        resumed = self.config.output.resume and self.safe_points.restore()
        if not resumed:
            self.start()
        if self.run.task.engine.captured and self.why_plain is not None:
            tell(f"updates are computed operation by operation, which takes a GPU longer: {self.why_plain}")
        try:
            with (
                self.records.watching(self.config.output, resumed, self.settings, self.phases.scalars, self.watchers),
                self.safe_points.listening(),
            ):
                self.phases.execute(self.safe_points.reach)
        except RunInterrupted:
            self.save_results()
            raise
        except AgentDiverged as error:
            raise self._agent_diverged(error) from error
        self.save_results()

    @property
    def why_plain(self) -> str | None:
        """Why the updates of a single run that has begun are not captured as CUDA graphs; None if they are."""
        return self.trained.update.why_plain if isinstance(self.trained, DistillationRun) else None

    def _open_tracker(self, name: TrackerName) -> TrackedFigures:
        """Open a tracker for the run, which gets the figures of every epoch from now on.

        Raises:
            UsageError: if it cannot be opened, such as without a login.
        """
        title = self.config.folder.name if self.folder is None else self.folder.name
        try:
            tracker = TRACKERS[name][0](title, self.config.settings(), self.folder)
        except Exception as error:  # a tracker may raise anything
            told = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsageError(f"--track {name} cannot begin: {told}") from error
        return TrackedFigures(tracker, lambda: self.records.history)

    @contextmanager
    def alone_in_folder(self) -> Iterator[None]:
        """Keep others out of the folder, in which somebody may have begun since it was checked.

        Raises:
            UsageError: if somebody has.
        """
        if self.folder is None:
            yield
            return
        with locked(self.folder):
            check_folder(self.folder, self.config.output.overwrite, self.config.output.resume, holds_lock=True)
            yield

    def start(self) -> None:
        """Clear the folder, write the settings, and start what is trained."""
        if self.folder is not None:
            clear_folder(self.folder)
            write_json(self.folder / CONFIG_FILE, self.config.settings())
        self._reset()

    def _reset(self) -> None:
        """Start what is trained."""
        self.run.reset(self.config.output.seed)

    def _agent_diverged(self, error: AgentDiverged) -> AgentDiverged:
        """Save the students, and return what tells the user of it."""
        told = f"the agent diverged at update {self.records.steps} of {self.run.total_steps} ({error}): "
        advice = "choose a lower learning_rate among --agent-options, or a rule"
        if self.folder is None:
            return AgentDiverged(told + advice)
        self.save_students(self.folder)
        self.records.save()
        write_json(self.folder / AGENT_FILE, {"diverged_at": self.records.steps})
        return AgentDiverged(f"{told}the students up to there are in {self.folder}; {advice}, with --overwrite")

    def save_results(self) -> None:
        """Write the students that are kept, the agent's policy, and what the run was like so far."""
        if self.folder is None:
            return
        self.save_students(self.folder)
        policy = self.phases.learned_policy()
        if policy is not None:
            policy.save(self.folder)
        self.records.save()

    def save_students(self, folder: Path) -> None:
        """Write the students that are kept into a folder."""
        files: list[tuple[str, KeptEpoch]] = [(LAST_STUDENT_FILE, "last"), (BEST_STUDENT_FILE, "best")]
        for name, epoch in [*files, (STUDENT_FILE, self.config.kept_epoch)]:
            student = self.records.selection.of(epoch)
            if student is not None:
                self.save_student(folder / name, student.weights)

    def save_student(self, path: Path, weights: dict[str, Tensor]) -> None:
        """Write a student, with what is needed to make it again if it was made by name."""
        splits, options = self.run.splits, {**self.config.run.networks.student_options, **self.run.student_options}
        if self.objects.student is None:
            of_data = (splits.num_classes, splits.image_shape, options, splits.train.normalization)
            save_network(path, weights, self.student_name, *of_data)
        else:
            write_tensors(path, weights)

    @property
    def kept(self) -> KeptStudent | None:
        """The student that the run is for, as the options ask; None if there is no good one."""
        student = self.records.selection.of(self.config.kept_epoch)
        return None if student is None else KeptStudent(self.network(student.weights), student.accuracy, student.epoch)

    def students(self) -> dict[str, nn.Module]:
        """Return the students of a population's members by their names; a run of one student has no members."""
        return {}

    def figures(self, test: ImageSet | None) -> dict[str, Any]:  # noqa: ARG002
        """Return what the summary says beyond the figures of one student, with those on the test images."""
        return {}

    @property
    def student_name(self) -> str:
        """Name of the student network."""
        name = self.config.run.networks.student
        return self.source.default_student if name == "auto" else name

    def test_set(self) -> ImageSet | None:
        """Return the test images on the run's device, or None if there are none."""
        device = self.run.device

        def load() -> ImageSet | None:
            images = self.source.test_set()
            return images if images is None else images.to(device)

        return self._memo.keep(("test", f"{self.config.run.data} on {device}"), load)

    def network(self, weights: dict[str, Tensor]) -> nn.Module:
        """Return a student with these weights on the run's device."""
        return student_of(self.run, weights)


def student_of(run: DistillationRun, weights: dict[str, Tensor]) -> nn.Module:
    """Return a student of a run with these weights, on its device."""
    student = run.create_student().to(run.device)
    student.load_state_dict(weights)
    return student
