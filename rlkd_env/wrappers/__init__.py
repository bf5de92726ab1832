"""Wrappers around the environments: other actions, calibrated rewards, exploration."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.wrappers.calibrated_reward import CalibratedReward as CalibratedReward
    from rlkd_env.wrappers.coefficient_action import CoefficientAction as CoefficientAction
    from rlkd_env.wrappers.exploration import EfficientExploration as EfficientExploration
    from rlkd_env.wrappers.residual_action import ResidualAction as ResidualAction
    from rlkd_env.wrappers.temperature_action import (
        SingleTemperatureAction as SingleTemperatureAction,
        TemperatureAction as TemperatureAction,
    )
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
