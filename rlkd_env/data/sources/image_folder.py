"""Images in one folder per class, ImageNet and Tiny-ImageNet."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
import torchvision
from torch import Tensor
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.datasets.utils import download_and_extract_archive

from rlkd_env.data.images import ImageSet, MemoryImages, Preprocessing
from rlkd_env.data.splits import LabelledSource
from rlkd_env.data.streamed import MEMORY_LIMIT, SMALL_SIZE, FileReader, StreamedImages, readable
from rlkd_env.errors import UsageError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TEST_FOLDERS = ("test", "val", "validation")

Sample = tuple[Path, int]
"""A file and its class."""


class ImageFolder(LabelledSource):
    """ROOT/train/CLASS/FILE and, for testing, ROOT/test/CLASS/FILE (or val); or ROOT/CLASS/FILE without a test set.

    Images are resized to one size and converted to RGB. They are read once if they fit into memory and random views are
    not random parts of larger images; otherwise worker processes read them ahead of their use.
    """

    default_teacher = "torchvision/resnet34"
    default_student = "torchvision/resnet18"
    default_size = 224

    def training_images(self) -> tuple[ImageSet, int]:
        """Load the training images and the number of classes."""
        return self._training_images

    @cached_property
    def _training_images(self) -> tuple[ImageSet, int]:
        samples, classes = self.samples(is_train=True)
        return self._image_set(samples, is_train=True), len(classes)

    def test_set(self) -> ImageSet | None:
        """Load the test set, or None if there is none."""
        samples, classes = self.samples(is_train=False)
        if not samples:
            return None
        known = self.samples(is_train=True)[1]
        if classes != known:
            raise UsageError(
                f"the test images of {self.config.root} have the classes {', '.join(classes)}, "
                f"the training images {', '.join(known)}"
            )
        return self._image_set(samples, is_train=False)

    def samples(self, is_train: bool) -> tuple[list[Sample], list[str]]:
        """List the files with their classes, and the classes' names; both are empty if there is no test set.

        Raises:
            UsageError: If there is no class folder, or one without images.
        """
        root = self.config.root
        if not root.is_dir():
            raise UsageError(f"there is no folder {root}: pass the folder with the images as --data-path")
        has_parts = (root / "train").is_dir()
        if is_train:
            return list_folder(root / "train" if has_parts else root)
        tests = [root / name for name in _TEST_FOLDERS if (root / name).is_dir()]
        return list_folder(tests[0]) if has_parts and tests else ([], [])

    def _image_set(self, samples: list[Sample], is_train: bool) -> ImageSet:
        config = self.config
        size = config.image_size or self.default_size
        augmentation = config.augmentation if is_train else "none"
        if augmentation == "auto":
            augmentation = "resized_crop" if size > SMALL_SIZE else "crop_flip"
        in_memory = augmentation != "resized_crop" and len(samples) * 3 * size**2 <= MEMORY_LIMIT
        if augmentation == "crop_flip" and not in_memory:
            raise UsageError(
                f"{len(samples)} images of {size} x {size} do not fit into memory, which the augmentation crop_flip "
                "needs: use resized_crop, flip or none, or a smaller --image-size"
            )
        is_flipped = augmentation != "none"
        reader = FileReader([path for path, _ in samples], size, augmentation == "resized_crop", is_flipped)
        labels = torch.tensor([label for _, label in samples])
        constants = (IMAGENET_MEAN, IMAGENET_STD)
        if not in_memory:
            good = readable(reader, config) if config.damaged_images == "skip" else torch.arange(len(samples))
            return StreamedImages(reader, good, labels[good], Preprocessing(*constants), config.workers)
        pixels: list[Tensor] = []
        good = readable(reader, config, pixels)
        padding = size // 8 if augmentation == "crop_flip" else 0
        return MemoryImages(torch.stack(pixels), labels[good], Preprocessing(*constants, padding, is_flipped))


class ImageNet(ImageFolder):
    """ILSVRC 2012 in ROOT/imagenet: the folders train and val, or the archives, which torchvision checks and unpacks.

    The labelled validation images serve as the test set.
    """

    def samples(self, is_train: bool) -> tuple[list[Sample], list[str]]:
        """List the files with their classes, and the classes' names.

        Raises:
            UsageError: If there are neither folders nor archives.
        """
        root = self.config.root if self.config.data_path != "auto" else self.config.root / "imagenet"
        split = "train" if is_train else "val"
        if not (root / split).is_dir():
            try:
                torchvision.datasets.ImageNet(str(root), split)
            except (RuntimeError, OSError) as error:
                raise UsageError(
                    f"ImageNet is not in {root}: there is no folder {split}, and torchvision says: {error}"
                ) from None
        return list_folder(root / split)


class TinyImageNet(ImageFolder):
    """100,000 training and 10,000 labelled validation images (used as the test set) of 200 classes, 64 by 64, RGB."""

    default_teacher = "resnet56"
    default_student = "resnet20"
    default_size = 64
    url = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    md5 = "90528d7ca1a48142e341f4ef8d21d0de"

    def samples(self, is_train: bool) -> tuple[list[Sample], list[str]]:
        """List the files with their classes, and the classes' names.

        Raises:
            UsageError: If the files are missing.
        """
        root = self.config.root / "tiny-imagenet-200"
        if not root.is_dir():
            if not self.config.download:
                raise UsageError(
                    f"Tiny-ImageNet is not in {root}: pass --download, or the folder that holds it as --data-path"
                )
            try:
                download_and_extract_archive(self.url, str(self.config.root), md5=self.md5)
            except (RuntimeError, OSError) as error:
                raise UsageError(f"Tiny-ImageNet could not be downloaded to {root}: {error}") from None
        train, classes = list_folder(root / "train")
        if is_train:
            return train, classes
        rows = [row.split("\t") for row in (root / "val" / "val_annotations.txt").read_text().splitlines()]
        return [(root / "val" / "images" / row[0], classes.index(row[1])) for row in rows], classes


def list_folder(root: Path) -> tuple[list[Sample], list[str]]:
    """List the image files with their classes, one folder per class, and the classes' names in order."""
    try:
        found = TorchvisionFolder(str(root))
    except FileNotFoundError as error:
        raise UsageError(f"{root} does not hold one folder per class with images in it: {error}") from None
    return [(Path(path), label) for path, label in found.samples], list(found.classes)
