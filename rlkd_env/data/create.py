"""Data sets by name. To add one, write a subclass of ``DataSource`` in a file of its own and a line in ``DATASETS``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlkd_env.utils.registry import Registry

if TYPE_CHECKING:
    from rlkd_env.data.config import DataConfig
    from rlkd_env.data.splits import DataSource

DATASETS: Registry[type[DataSource]] = Registry(
    "data set",
    {
        "digits": "rlkd_env.data.sources.digits:Digits",
        "cifar10": "rlkd_env.data.sources.torchvision_sets:CIFAR10",
        "cifar100": "rlkd_env.data.sources.torchvision_sets:CIFAR100",
        "fashion_mnist": "rlkd_env.data.sources.torchvision_sets:FashionMNIST",
        "arrays": "rlkd_env.data.sources.arrays:Arrays",
        "image_folder": "rlkd_env.data.sources.image_folder:ImageFolder",
        "imagenet": "rlkd_env.data.sources.image_folder:ImageNet",
        "tiny_imagenet": "rlkd_env.data.sources.image_folder:TinyImageNet",
        "digits_detection": "rlkd_env.data.detection.digits_detection:DigitsDetection",
        "coco": "rlkd_env.data.detection.coco:COCO",
        "voc": "rlkd_env.data.detection.voc:VOC",
    },
)


def create_source(config: DataConfig) -> DataSource:
    """Return the data set that a config names: one of :data:`DATASETS`, or ``package.module:factory``.

    Raises:
        UsageError: if the name is unknown or cannot be imported.
    """
    return source_class(config.dataset)(config)


def source_class(name: str) -> type[DataSource]:
    """Return the class of the data set of this name.

    Raises:
        UsageError: if the name is unknown.
    """
    if ":" in name:
        from rlkd_env.data.sources.user_dataset import UserDataset

        return UserDataset
    return DATASETS[name]
