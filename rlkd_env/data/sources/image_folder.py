"""Images in one folder per class, ImageNet and Tiny-ImageNet."""

from __future__ import annotations

from functools import cached_property

import torch
import torchvision
from torch import Tensor
from torchvision.datasets.utils import download_and_extract_archive

from rlkd_env.data.augmentation import ImageChanges, Preprocessing
from rlkd_env.data.images import ImageSet, MemoryImages
from rlkd_env.data.normalization import NORMALIZATIONS
from rlkd_env.data.sources.folders import Sample, find_parts, list_classes, tell_of_others
from rlkd_env.data.splits import LabelledSource, Part
from rlkd_env.data.streamed import MEMORY_LIMIT, SMALL_SIZE, FileReader, StreamedImages, readable
from rlkd_env.errors import UsageError
from rlkd_env.utils.files import read_text, reading

_LARGEST_LIST = 2**24


class ImageFolder(LabelledSource):
    """ROOT/train/CLASS/FILE, and perhaps ROOT/val/CLASS/FILE and ROOT/test/CLASS/FILE; or ROOT/CLASS/FILE.

    Without a folder of validation images some training images are taken; without one of test images there are none.
    Images are turned as their EXIF orientation says, resized to one size and converted to RGB. They are read once if
    they fit into memory and random views are not random parts of larger images; otherwise worker processes read them
    ahead of their use.
    """

    default_teacher = "torchvision/resnet34"
    default_student = "torchvision/resnet18"
    default_size = 224

    def training_images(self) -> tuple[ImageSet, int]:
        """Load the training images and the number of classes."""
        return self._training_images

    @cached_property
    def _training_images(self) -> tuple[ImageSet, int]:
        samples, classes = self._listed("train")
        return self._image_set(samples, is_train=True), len(classes)

    def validation_set(self) -> ImageSet | None:
        """Load the data's own validation images, or None if they are to be drawn from the training images."""
        return self._other_part("validation")

    def test_set(self) -> ImageSet | None:
        """Load the test set, or None if there is none."""
        return self._other_part("test")

    def _other_part(self, part: Part) -> ImageSet | None:
        samples, classes = self._listed(part)
        if not samples:
            return None
        known = self._listed("train")[1]
        if classes != known:
            raise UsageError(
                f"the {part} images of {self.config.root} have the classes {', '.join(classes)}, "
                f"the training images {', '.join(known)}"
            )
        return self._image_set(samples, is_train=False)

    def _listed(self, part: Part) -> tuple[list[Sample], list[str]]:
        if part not in self._lists:
            self._lists[part] = self.samples(part)
        return self._lists[part]

    @cached_property
    def _lists(self) -> dict[Part, tuple[list[Sample], list[str]]]:
        """The samples and classes of the parts that have been asked for."""
        return {}

    def samples(self, part: Part) -> tuple[list[Sample], list[str]]:
        """List a part's files with their classes, and the classes' names; both are empty if there is no such part.

        Raises:
            UsageError: If there is no class folder, or one without images.
        """
        parts = find_parts(self.config.root)
        if part == "train" and parts:
            tell_of_others(self.config.root, parts.values())
        if part in parts:
            return list_classes(parts[part], part)
        return ([], []) if parts or part != "train" else list_classes(self.config.root)

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
        changes = ImageChanges.of(config)
        constants = config.constants(channels=3) or NORMALIZATIONS["imagenet"]
        if not in_memory:
            good = readable(reader, config) if config.damaged_images == "skip" else torch.arange(len(samples))
            preprocessing = Preprocessing(*constants, changes=changes)
            return StreamedImages(reader, good, labels[good], preprocessing, config.workers)
        pixels: list[Tensor] = []
        good = readable(reader, config, pixels)
        padding = size // 8 if augmentation == "crop_flip" else 0
        return MemoryImages(torch.stack(pixels), labels[good], Preprocessing(*constants, padding, is_flipped, changes))


class ImageNet(ImageFolder):
    """ILSVRC 2012 in ROOT/imagenet: the folders train and val, or the archives, which torchvision checks and unpacks.

    The labelled validation images serve as the test set.
    """

    def samples(self, part: Part) -> tuple[list[Sample], list[str]]:
        """List a part's files with their classes, and the classes' names.

        Raises:
            UsageError: If there are neither folders nor archives.
        """
        if part == "validation":
            return [], []
        root = self.config.root if self.config.data_path != "auto" else self.config.root / "imagenet"
        split = "train" if part == "train" else "val"
        if not (root / split).is_dir():
            try:
                torchvision.datasets.ImageNet(str(root), split)
            except (RuntimeError, OSError) as error:
                raise UsageError(
                    f"ImageNet is not in {root}: there is no folder {split}, and torchvision says: {error}"
                ) from None
        return list_classes(root / split, part)


class TinyImageNet(ImageFolder):
    """100,000 training and 10,000 labelled validation images (used as the test set) of 200 classes, 64 by 64, RGB."""

    default_teacher = "resnet56"
    default_student = "resnet20"
    default_size = 64
    url = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    md5 = "90528d7ca1a48142e341f4ef8d21d0de"

    def samples(self, part: Part) -> tuple[list[Sample], list[str]]:
        """List a part's files with their classes, and the classes' names.

        Raises:
            UsageError: If the files are missing.
        """
        if part == "validation":
            return [], []
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
        if part == "train":
            return list_classes(root / "train", part)
        classes = self._listed("train")[1]
        listed = root / "val" / "val_annotations.txt"
        with reading(listed):
            rows = [row.split("\t") for row in read_text(listed, _LARGEST_LIST).splitlines()]
            return [(root / "val" / "images" / row[0], classes.index(row[1])) for row in rows], classes
