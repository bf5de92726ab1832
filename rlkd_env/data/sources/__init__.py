"""Data sets of labelled images, one file for each kind of source."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.data.sources.arrays import Arrays as Arrays
    from rlkd_env.data.sources.digits import Digits as Digits
    from rlkd_env.data.sources.image_folder import (
        ImageFolder as ImageFolder,
        ImageNet as ImageNet,
        TinyImageNet as TinyImageNet,
    )
    from rlkd_env.data.sources.torchvision_sets import (
        CIFAR10 as CIFAR10,
        CIFAR100 as CIFAR100,
        FashionMNIST as FashionMNIST,
    )
    from rlkd_env.data.sources.user_dataset import UserDataset as UserDataset
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
