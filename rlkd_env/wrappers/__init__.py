"""Wrappers around the environments."""

from rlkd_env.wrappers.calibrated_reward import CalibratedReward
from rlkd_env.wrappers.coefficient_action import CoefficientAction
from rlkd_env.wrappers.exploration import EfficientExploration
from rlkd_env.wrappers.residual_action import ResidualAction
from rlkd_env.wrappers.temperature_action import TemperatureAction

__all__ = [
    "CalibratedReward",
    "CoefficientAction",
    "EfficientExploration",
    "ResidualAction",
    "TemperatureAction",
]
