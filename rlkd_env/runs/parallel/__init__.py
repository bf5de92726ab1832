"""Several runs at once: K students, each on its own batches, for one task, teacher, method and recipe."""

from rlkd_env.runs.parallel.base import ParallelResult, ParallelRuns
from rlkd_env.runs.parallel.choice import MODES, RunMode, check_mode, create_parallel_runs

__all__ = ["MODES", "ParallelResult", "ParallelRuns", "RunMode", "check_mode", "create_parallel_runs"]
