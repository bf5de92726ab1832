"""How much of the batch reward each instance's temperature earned."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.credit.calibrators import (
        CALIBRATORS as CALIBRATORS,
        Calibrator as Calibrator,
        Counterfactual as Counterfactual,
        Gradient as Gradient,
        LastLayer as LastLayer,
        Uniform as Uniform,
    )
    from rlkd_env.credit.return_decomposition import ReturnDecomposition as ReturnDecomposition
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
