"""An instance of a batch: what the networks say about it, what an agent sees of it, and its temperature."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.instances.actions import ActionMap as ActionMap, ResidualMap as ResidualMap
    from rlkd_env.instances.coefficients import (
        COEFFICIENT_FEATURES as COEFFICIENT_FEATURES,
        CoefficientRule as CoefficientRule,
    )
    from rlkd_env.instances.features import FEATURES as FEATURES, Feature as Feature, feature as feature
    from rlkd_env.instances.outputs import InstanceOutputs as InstanceOutputs, log_softmax as log_softmax
    from rlkd_env.instances.policy import PolicyModule as PolicyModule
    from rlkd_env.instances.schedule import AnnealedTemperature as AnnealedTemperature
    from rlkd_env.instances.state import InstanceState as InstanceState
    from rlkd_env.instances.temperature import (
        Policy as Policy,
        Temperature as Temperature,
        TemperatureRange as TemperatureRange,
        parse_bound as parse_bound,
        resolve_range as resolve_range,
    )
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
