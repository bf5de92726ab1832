"""What a person runs: the ``rlkd`` command line, and :func:`distill` for scripts and notebooks."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from experiments.api import DistillationResult as DistillationResult, distill as distill
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
