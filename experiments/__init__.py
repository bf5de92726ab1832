"""What a person runs: the ``rlkd`` command line, and :func:`distill` for scripts and notebooks."""

from typing import TYPE_CHECKING

from experiments.shadowing import check_agents
from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from experiments.api import DistillationResult as DistillationResult, distill as distill
else:
    _get, __dir__, __all__ = lazy_exports(__name__)

    def __getattr__(name):
        if name in __all__:
            check_agents()
        return _get(name)
