"""Data sets by name, one file a kind of source, and the stream of batches. A new one is a file and a line here."""

from __future__ import annotations

from rlkd_env.data.boxes import Boxes, Regions
from rlkd_env.data.config import DataConfig
from rlkd_env.data.detection.coco import COCO
from rlkd_env.data.detection.digits_detection import DigitsDetection
from rlkd_env.data.detection.image_sets import DetectionSet, MemoryDetectionSet
from rlkd_env.data.detection.voc import VOC
from rlkd_env.data.duplicates import count_duplicates
from rlkd_env.data.images import ImageSet, MemoryImages, Preprocessing
from rlkd_env.data.sources.arrays import Arrays
from rlkd_env.data.sources.digits import Digits
from rlkd_env.data.sources.image_folder import ImageFolder, ImageNet, TinyImageNet
from rlkd_env.data.sources.torchvision_sets import CIFAR10, CIFAR100, FashionMNIST
from rlkd_env.data.sources.user_dataset import UserDataset
from rlkd_env.data.splits import DataSource, LabelledSource, Splits, TaskName
from rlkd_env.data.stream import Batch, BatchStream, Share
from rlkd_env.utils.registry import Registry

DATASETS: Registry[type[DataSource]] = Registry("data set")
DATASETS.register("digits")(Digits)
DATASETS.register("cifar10")(CIFAR10)
DATASETS.register("cifar100")(CIFAR100)
DATASETS.register("fashion_mnist")(FashionMNIST)
DATASETS.register("arrays")(Arrays)
DATASETS.register("image_folder")(ImageFolder)
DATASETS.register("imagenet")(ImageNet)
DATASETS.register("tiny_imagenet")(TinyImageNet)
DATASETS.register("digits_detection")(DigitsDetection)
DATASETS.register("coco")(COCO)
DATASETS.register("voc")(VOC)


def create_source(config: DataConfig) -> DataSource:
    """Return the data set that a config names: one of :data:`DATASETS`, or ``package.module:factory``.

    Raises:
        UsageError: if the name is unknown or cannot be imported.
    """
    return source_class(config.dataset)(config)


def source_class(name: str) -> type[DataSource]:
    """Return what makes the data set of this name.

    Raises:
        UsageError: if the name is unknown.
    """
    return UserDataset if ":" in name else DATASETS[name]


__all__ = [
    "DATASETS",
    "Batch",
    "BatchStream",
    "Boxes",
    "DataConfig",
    "DataSource",
    "DetectionSet",
    "ImageSet",
    "LabelledSource",
    "MemoryDetectionSet",
    "MemoryImages",
    "Preprocessing",
    "Regions",
    "Share",
    "Splits",
    "TaskName",
    "count_duplicates",
    "create_source",
    "source_class",
]
