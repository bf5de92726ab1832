"""Policies learned over many runs: saved, loaded and evolved."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from agents.learned.coefficient_policy import CoefficientPolicy as CoefficientPolicy
    from agents.learned.evolution import Evolution as Evolution
    from agents.learned.loading import PRETRAINED as PRETRAINED, load_policy as load_policy
    from agents.learned.temperature_policy import TemperaturePolicy as TemperaturePolicy
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
