"""Wrappers around the environments."""

from rlkd_env.wrappers.temperature_action import TemperatureAction

__all__ = ["TemperatureAction"]
