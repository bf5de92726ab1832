"""One run from start to end: what drives it, what is recorded of it, and its checkpoints, in one folder."""

from __future__ import annotations

from pathlib import Path

from tqdm.auto import tqdm

from experiments.config import DistillConfig
from experiments.session.checkpoints import RunInterrupted, SafePoints
from experiments.session.choosers import fixed_temperature, frozen_policy, rule_to_act_around
from experiments.session.folder import CONFIG_FILE, LAST_STUDENT_FILE, STUDENT_FILE, clear_folder
from experiments.session.phases import Phases, PolicyPhases
from experiments.session.records import Records
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.models.storage import save_network
from rlkd_env.runs.build import build_run
from rlkd_env.runs.distributed.processes import Processes
from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.files import write_json


class DistillSession:
    """A run with an agent, a saved policy or a rule at its temperatures.

    Everything is built and checked here; the folder is first touched by :meth:`execute`.

    Args:
        config: all options.
        run: the run that ``config.run`` describes.
        folder: where everything is written; None writes nothing.

    Attributes:
        records: what is recorded of the run.
        phases: what drives it.
        safe_points: where it is saved and may stop.
        watchers: further hooks that watch the run; they must neither change it nor need a checkpoint.

    Raises:
        UsageError: if an option is invalid.
    """

    def __init__(self, config: DistillConfig, run: DistillationRun, folder: Path | None) -> None:
        self.config, self.run, self.folder = config, run, folder
        self.records = Records(run, folder)
        self.phases = _create_phases(config, run, self.records)
        self.safe_points = SafePoints(
            folder,
            config.output.checkpoint_seconds,
            config.settings(),
            {"run": run, "records": self.records, "phases": self.phases},
            self.records.timer,
        )
        self.watchers: list[RunHook] = []

    def execute(self) -> None:
        """Make the whole run, or what is left of it, and write students and policy.

        Raises:
            RunInterrupted: after Ctrl-C, with everything saved.
            UsageError: if the checkpoint to resume from is damaged or belongs to another run.
        """
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
        config, splits, selection = self.config.run, self.run.splits, self.records.selection
        card = (config.student_name, splits.num_classes, splits.image_shape, config.networks.student_options)
        students = {STUDENT_FILE: selection.best_student, LAST_STUDENT_FILE: selection.last_student}
        for name, weights in students.items():
            if weights is not None:
                save_network(self.folder / name, weights, *card)
        policy = self.phases.learned_policy()
        if policy is not None:
            policy.save(self.folder)
        self.records.save()


def prepare(config: DistillConfig, processes: Processes | None = None) -> DistillSession:
    """Build a run and what drives it; nothing is written except, perhaps, a cached teacher.

    Args:
        config: all options.
        processes: that share the run, if several do.

    Raises:
        UsageError: if an option is invalid.
    """
    bar = _TeacherBar(config.output.progress and (processes is None or processes.is_first))
    run = build_run(config.run, on_teacher_epoch=bar.show, processes=processes)
    bar.close()
    return DistillSession(config, run, config.folder)


class _TeacherBar:
    """Shows the training of a teacher that is not cached yet."""

    def __init__(self, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._bar: tqdm | None = None

    def show(self, epoch: int, loss: float) -> None:
        """Follow an epoch, counted from 1."""
        if self._bar is None:
            self._bar = tqdm(desc="teacher", unit="epoch", disable=not self._is_shown)
        self._bar.update(epoch - self._bar.n)
        self._bar.set_postfix(loss=f"{loss:.4f}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _create_phases(config: DistillConfig, run: DistillationRun, records: Records) -> Phases:
    """Create what drives the run as the options ask.

    Raises:
        UsageError: if an option is invalid, whether or not it is used.
    """
    options, output = config.agent, config.output
    fixed = fixed_temperature(options, run)
    around = rule_to_act_around(options, run, output.seed)
    policy = frozen_policy(options, run, output.seed)
    exploration = config.exploration.settings(run.recipe.epochs)
    _ = CALIBRATORS[options.calibrator]  # an unknown name is told even if no agent learns
    if policy is not None:
        return PolicyPhases(run, records, policy)
    from experiments.session.learning import AgentPhases  # needs stable-baselines3, which takes long to import

    return AgentPhases(config, run, records, exploration, fixed, around)
