"""The knowledge-distillation run, its reward, its hooks and its configuration."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.runs.build import build_run as build_run
    from rlkd_env.runs.config import RunConfig as RunConfig
    from rlkd_env.runs.hooks import RunHook as RunHook, StepResult as StepResult
    from rlkd_env.runs.reward import (
        REWARDS as REWARDS,
        Measurement as Measurement,
        Reward as Reward,
        RewardMeter as RewardMeter,
    )
    from rlkd_env.runs.run import DistillationRun as DistillationRun
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
