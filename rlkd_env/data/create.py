"""Data sets by name. To add one, write a subclass of ``DataSource`` in a file of its own and a line in ``DATASETS``.

From outside the package come classes of that kind, and functions or classes that return a torch ``Dataset``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlkd_env.utils.registry import Registry

if TYPE_CHECKING:
    from rlkd_env.data.config import DataConfig
    from rlkd_env.data.splits import DataSource


def _adopt(part: Any) -> type[DataSource]:
    from rlkd_env.data.sources.user_dataset import UserDataset
    from rlkd_env.data.splits import DataSource

    return part if isinstance(part, type) and issubclass(part, DataSource) else UserDataset.of(part)


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
        "yolo": "rlkd_env.data.detection.yolo:YOLO",
    },
    _adopt,
)


def create_source(config: DataConfig) -> DataSource:
    """Return the data set that a config names: one of :data:`DATASETS`, or ``package.module:name``."""
    return DATASETS[config.dataset](config)
