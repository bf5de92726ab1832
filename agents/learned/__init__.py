"""Policies that were learned: saved, loaded, and evolved over many runs."""

from agents.learned.coefficient_policy import CoefficientPolicy
from agents.learned.loading import load_policy
from agents.learned.temperature_policy import TemperaturePolicy

__all__ = ["CoefficientPolicy", "TemperaturePolicy", "load_policy"]
