"""How much of the batch reward each instance's temperature earned."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.credit.base import Calibrator as Calibrator, Reference as Reference, Uniform as Uniform
    from rlkd_env.credit.counterfactual import Counterfactual as Counterfactual
    from rlkd_env.credit.create import CALIBRATORS as CALIBRATORS
    from rlkd_env.credit.first_order import Gradient as Gradient, LastLayer as LastLayer
    from rlkd_env.credit.return_decomposition import ReturnDecomposition as ReturnDecomposition
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
