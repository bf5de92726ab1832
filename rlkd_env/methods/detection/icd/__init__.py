"""Instance-conditional distillation: its losses, its queries, and the decoder that answers them."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.methods.detection.icd.method import ICD as ICD
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
