"""One run from start to end: what drives it, what is recorded of it, and its checkpoints, in one folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import Tensor, nn
from tqdm.auto import tqdm

from experiments.config import DistillConfig
from experiments.config.choice import AgentChoice, Choice
from experiments.session.checkpoints import RunInterrupted, SafePoints
from experiments.session.folder import CONFIG_FILE, LAST_STUDENT_FILE, STUDENT_FILE, clear_folder
from experiments.session.objects import GivenObjects
from experiments.session.phases import Phases, PolicyPhases
from experiments.session.records import Records
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.data import DataSource, ImageSet, create_source
from rlkd_env.models.storage import save_network
from rlkd_env.runs.build import build_run
from rlkd_env.runs.distributed.processes import Processes
from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.files import write_json, write_tensors
from rlkd_env.utils.memo import Memo, NoMemo

_NO_OBJECTS = GivenObjects()


class DistillSession:
    """A run with an agent, a saved policy or a rule at its temperatures.

    Everything is built and checked here; the folder is first touched by :meth:`execute`.

    ``watchers`` are further hooks; they must neither change the run nor need a checkpoint.
    """

    def __init__(
        self,
        config: DistillConfig,
        run: DistillationRun,
        source: DataSource,
        folder: Path | None,
        objects: GivenObjects = _NO_OBJECTS,
        memo: Memo | None = None,
    ) -> None:
        self._memo = memo or NoMemo()
        self.config, self.run, self.source, self.folder, self.objects = config, run, source, folder, objects
        self.choice = objects.temperature or config.agent.choice
        self.records = Records(run, folder)
        self.phases = _create_phases(config, self.choice, run, self.records)
        self.safe_points = SafePoints(
            folder,
            config.output.checkpoint_seconds,
            config.settings(),
            {"run": run, "records": self.records, "phases": self.phases},
            self.records.timer,
        )
        self.watchers: list[RunHook] = []

    def execute(self) -> None:
        """Make the whole run, or what is left of it, and write students and policy."""
        self.records.start_clock()
        resumed = self.config.output.resume and self.safe_points.restore()
        if not resumed:
            self._start()
        try:
            with (
                self.records.watching(self.config.output, resumed, self.phases.scalars, self.watchers),
                self.safe_points.catching_interrupts(),
            ):
                self.phases.execute(self.safe_points.reach)
        except RunInterrupted:
            self.save_results()
            raise
        self.save_results()

    def _start(self) -> None:
        if self.folder is not None:
            clear_folder(self.folder)
            write_json(self.folder / CONFIG_FILE, self.config.settings())
        self.run.reset(self.config.output.seed)

    def save_results(self) -> None:
        """Write the students that are kept, the agent's policy, and what the run was like so far."""
        if self.folder is None:
            return
        selection = self.records.selection
        for name, weights in ((STUDENT_FILE, selection.best_student), (LAST_STUDENT_FILE, selection.last_student)):
            if weights is not None:
                self._save_student(self.folder / name, weights)
        policy = self.phases.learned_policy()
        if policy is not None:
            policy.save(self.folder)
        self.records.save()

    def _save_student(self, path: Path, weights: dict[str, Tensor]) -> None:
        """Write a student, with what is needed to make it again if it was made by name."""
        splits, options = self.run.splits, self.config.run.networks.student_options
        if self.objects.student is None:
            save_network(path, weights, self.student_name, splits.num_classes, splits.image_shape, options)
        else:
            write_tensors(path, weights)

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
        student = self.run.create_student().to(self.run.device)
        student.load_state_dict(weights)
        return student


def prepare(
    config: DistillConfig,
    objects: GivenObjects = _NO_OBJECTS,
    processes: Processes | None = None,
    writes: bool = True,
    memo: Memo | None = None,
) -> DistillSession:
    """Build a run and what drives it; nothing is written except, perhaps, a cached teacher.

    A memo, for runs without objects, keeps data and teacher for the next run that has the same ones.
    """
    memo = memo or NoMemo()
    is_shown = config.output.progress and (processes is None or processes.is_first)
    bar: tqdm | None = None

    def follow_teacher(epoch: int, loss: float) -> None:
        """Show the training of a teacher that is not cached yet; epochs count from 1."""
        nonlocal bar
        if bar is None:
            bar = tqdm(desc="teacher", unit="epoch", disable=not is_shown)
        bar.update(epoch - bar.n)
        bar.set_postfix(loss=f"{loss:.4f}")

    create = partial(objects.data or create_source, config.run.data)
    source = memo.keep(("source", str(config.run.data)), create)
    run = build_run(config.run, source, objects.teacher, objects.student, follow_teacher, processes, memo)
    if bar is not None:
        bar.close()
    return DistillSession(config, run, source, config.folder if writes else None, objects, memo)


def _create_phases(config: DistillConfig, choice: Choice, run: DistillationRun, records: Records) -> Phases:
    """Create what drives the run as the options ask."""
    config.agent.fixed.temperature(run)
    _ = CALIBRATORS[config.agent.calibrator]  # an unknown name is told even if no agent learns
    if not isinstance(choice, AgentChoice):
        return PolicyPhases(run, records, choice.policy(run, config.output.seed))
    from experiments.session.learning import AgentPhases  # needs stable-baselines3, which takes long to import

    return AgentPhases(config, choice, run, records)
