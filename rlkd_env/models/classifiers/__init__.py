"""Networks that classify images, one file for each family."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.models.classifiers.own_networks import MODELS as MODELS
    from rlkd_env.models.classifiers.torchvision_networks import (
        create_torchvision as create_torchvision,
        torchvision_names as torchvision_names,
    )
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
