"""An instance of a batch: what the networks say about it, what an agent sees of it, and its temperature."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.instances.coefficients import CoefficientRule as CoefficientRule
    from rlkd_env.instances.features import FEATURES as FEATURES, Feature as Feature, feature as feature
    from rlkd_env.instances.outputs import InstanceOutputs as InstanceOutputs
    from rlkd_env.instances.state import InstanceState as InstanceState
    from rlkd_env.instances.temperature import Policy as Policy, Temperature as Temperature
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
