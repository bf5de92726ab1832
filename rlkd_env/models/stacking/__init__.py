"""K networks of one architecture as one, whose weights are stacked."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.models.stacking.networks import StackedNetworks as StackedNetworks
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
