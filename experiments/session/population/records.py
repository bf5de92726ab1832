"""What is recorded of a population: a record for every member, and which of them is the best."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.recording.lockstep import LockstepRecorder
from agents.recording.record import RunRecord
from experiments.session.folder import MEMBERS_FOLDER
from experiments.session.records import Records
from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.parallel import ParallelRuns

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class PopulationRecords(Records):
    """Records K runs in lock-step; what it shows as the run's own is that of the member which is the best so far."""

    def __init__(
        self, runs: ParallelRuns, folder: Path | None, names: Iterable[str], patience: int | None = None
    ) -> None:
        super().__init__(runs, folder, patience)
        self.members = {name: RunRecord(self.timer) for name in names}
        self._runs = runs
        self._recorder = LockstepRecorder(list(self.members.values()), self.timer)
        self._writers: list[SummaryWriter] = []

    @property
    def best(self) -> str:
        """The member with the best student on the validation images, as a run chooses its best epoch."""
        return max(self.members, key=lambda name: self.members[name].selection.rank)

    @property
    def shown(self) -> RunRecord:
        """The record of the best member."""
        return self.members[self.best]

    @property
    def _latest_best(self) -> int:
        return max(record.selection.best_epoch for record in self.members.values())

    @property
    def steps(self) -> int:
        """The number of updates that were made of every student."""
        return self._recorder.steps

    @property
    def diverged(self) -> bool:
        """Whether all members have diverged."""
        return all(self.diverged_members)

    @property
    def diverged_members(self) -> list[bool]:
        """Which members have diverged."""
        found: list[bool] = self._recorder.diverged.tolist()
        return found

    def _recorders(self) -> list[RunHook]:
        return [self._recorder]

    def _open_curves(
        self,
        folder: Path,
        purge_step: int | None,
        scalars: Callable[[], dict[str, float]],  # noqa: ARG002 (those of calibrators, which need a single run)
    ) -> list[RunHook]:
        """Open a file for the agent, and one for every member in a folder of its name: TensorBoard overlays them."""
        from agents.recording.tensorboard import LockstepCurves, open_curves  # takes long to import

        self.writer = open_curves(folder, purge_step)
        of_members = folder / MEMBERS_FOLDER
        self._writers = [open_curves(of_members / name, purge_step) for name in self.members]
        return [LockstepCurves(self._writers, list(self.members.values()), self.timer)]

    def _close_curves(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers = []
        super()._close_curves()

    def _flush_curves(self) -> None:
        for writer in self._writers:
            writer.flush()
        super()._flush_curves()

    def history_content(self) -> dict[str, Any]:
        """Return the content of ``history.json``: the history of the best member, and those of all by their names."""
        members = {name: record.history.epochs for name, record in self.members.items()}
        return {**super().history_content(), "members": members}

    def _recorded(self) -> dict[str, Any]:
        return self._recorder.state_dict()

    def _load_recorded(self, state: dict[str, Any]) -> None:
        self._recorder.load_state_dict(state, self._runs)
