"""Several runs at once: K students, each on its own batches, with one task, teacher, method and recipe."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.runs.parallel.base import ParallelResult as ParallelResult, ParallelRuns as ParallelRuns
    from rlkd_env.runs.parallel.choice import (
        MODES as MODES,
        RunMode as RunMode,
        check_mode as check_mode,
        create_parallel_runs as create_parallel_runs,
        fastest_mode as fastest_mode,
        seconds_alone as seconds_alone,
        seconds_per_step as seconds_per_step,
    )
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
