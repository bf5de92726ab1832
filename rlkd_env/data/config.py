"""What can be asked of a data set."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rlkd_env.data.normalization import AUTO, Constants, for_channels, read_normalization
from rlkd_env.utils.choices import Augmentation, AutoAugment, DamagedImages
from rlkd_env.utils.files import expanded
from rlkd_env.utils.options import (
    MOST_PROCESSES,
    Bounds,
    Options,
    Seed,
    UnitInterval,
)

USUAL_PROBE = 512
ImageCount = Annotated[int, Bounds(at_least=1, unit="image")]


@dataclass(frozen=True)
class DataConfig(Options):
    """Which data, and its parts. The defaults are those of Digits."""

    dataset: str = "digits"
    """Name of the data set: digits, cifar10, cifar100, fashion_mnist, tiny_imagenet, imagenet, arrays (an .npz file),
    image_folder, or package.module:factory for a torch Dataset of one's own; for detection digits_detection, coco (any
    annotations in its format), voc or yolo."""
    data_path: str = "auto"
    """Folder that holds the data set, or the .npz file; auto is what RLKD_DATA names, else ~/.cache/rlkd/data."""
    annotations: tuple[str, ...] = ()
    """Files of annotations under names of their own, in the folder of the data: for coco those of the training images
    and, if there are such, of the validation and the test images, in this order; for yolo the YAML file."""
    download: bool = False
    """Download the data set where it is missing and its authors' site offers it."""
    train_images: ImageCount | None = None
    """Number of the student's training images; None takes all."""
    teacher_images: ImageCount | None = None
    """Number of the teacher's training images, among them the student's; None takes all."""
    probe_size: ImageCount | None = None
    """Number of images that rewards are measured on, at most a tenth of all; None takes that, at most 512. No gradient
    comes from them."""
    validation_images: ImageCount | None = None
    """Number of images that decide which student is kept; None takes a tenth, at most 2,500."""
    split_seed: Seed = 0
    """Seed of the split into training, probe and validation images."""
    image_size: Annotated[int, Bounds(at_least=1, at_most=4096)] | None = None
    """Height and width that images are brought to; None leaves arrays as they are and takes 224 for folders, 64 for
    Tiny-ImageNet and scenes of digits, 320 for coco and voc."""
    normalization: tuple[str, ...] = AUTO
    """Mean and standard deviation that pixels from 0 to 1 are normalised by: auto (the usual constants of the data set;
    for arrays those of their training images), none, imagenet, inception (0.5), clip, cifar10, cifar100, mnist,
    fashion_mnist, or the numbers, one each or one a channel. Detectors have ImageNet's."""
    augmentation: Augmentation = "auto"
    """Random views of the training images: none, flip, crop_flip (pad by an eighth and crop), or resized_crop (files
    alone); auto is what is usual for the data set. For detection it is none or flip."""
    auto_augment: AutoAugment = "none"
    """Random changes of colour and shape of the training images, in random views: torchvision's randaugment (two of a
    fixed strength) or trivialaugment (one of a random strength)."""
    randaugment_magnitude: Annotated[int, Bounds(at_least=0, at_most=30)] = 9
    """Strength of the changes of randaugment."""
    random_erase: UnitInterval = 0.0
    """Probability that a rectangle of a training image is erased, in random views."""
    damaged_images: DamagedImages = "refuse"
    """What to do with image files that cannot be read: refuse the data, or skip them after a look at every file."""
    workers: Annotated[int, Bounds(at_least=0, at_most=MOST_PROCESSES)] = 4
    """Processes that read images which do not fit into memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        read_normalization(self.normalization)

    def constants(self, channels: int) -> Constants | None:
        """Return the mean and standard deviation of every channel that were asked for, or None for the usual ones."""
        constants = read_normalization(self.normalization)
        return None if constants is None else for_channels(constants, channels)

    @property
    def root(self) -> Path:
        """Folder or file of the data."""
        if self.data_path != "auto":
            return expanded(self.data_path)
        return Path(os.environ.get("RLKD_DATA") or Path.home() / ".cache" / "rlkd" / "data")
