"""One run that several processes share, started by ``torchrun``."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.runs.distributed.processes import Processes as Processes
    from rlkd_env.runs.distributed.run import DistributedRun as DistributedRun
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
