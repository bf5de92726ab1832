"""What is recorded of a run: its history, a sample of instances, the students that are kept, curves and times."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from agents.recording.history import RunHistory as RunHistory
    from agents.recording.lockstep import LockstepRecorder as LockstepRecorder
    from agents.recording.record import RunProgress as RunProgress, RunRecord as RunRecord
    from agents.recording.selection import StudentSelection as StudentSelection
    from agents.recording.tensorboard import TensorBoardCurves as TensorBoardCurves
    from agents.recording.timing import PartTimer as PartTimer, TimedVectorEnv as TimedVectorEnv
    from agents.recording.trace import InstanceTrace as InstanceTrace, TracedRewards as TracedRewards
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
