"""How much of the batch reward each instance's temperature earned."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.credit.base import Calibrator as Calibrator
    from rlkd_env.credit.create import CALIBRATORS as CALIBRATORS
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
