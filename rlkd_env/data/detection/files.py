"""The base of the sources of annotated image files, COCO's format and Pascal VOC's."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from rlkd_env.data.augmentation import Preprocessing
from rlkd_env.data.config import DataConfig
from rlkd_env.data.detection.annotations import Annotations, Objects
from rlkd_env.data.detection.image_sets import DetectionSet, MemoryDetectionSet, StreamedDetectionSet, is_flipped
from rlkd_env.data.detection.letterbox import LetterboxReader
from rlkd_env.data.images import ImageSet
from rlkd_env.data.normalization import NORMALIZATIONS
from rlkd_env.data.splits import LabelledSource, Part
from rlkd_env.data.streamed import MEMORY_LIMIT, readable
from rlkd_env.errors import UsageError
from rlkd_env.utils.files import reading
from rlkd_env.utils.notices import tell

_LARGEST_SIDE = 2**31 - 1
_COLOUR = (124, 116, 104)
"""ImageNet's mean, which makes the padding nearly 0 after normalisation."""


@dataclass(frozen=True, eq=False)
class AnnotatedFiles:
    """Image files with their widths and heights, and their objects as rows of an ``Objects`` table.

    The name of the annotations is for messages; the names of classes start with class 1.
    """

    name: str
    class_names: tuple[str, ...]
    paths: list[Path] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    rows: list[tuple[int, tuple[float, float, float, float], int, bool, float]] = field(default_factory=list)


class DetectionFiles(LabelledSource):
    """Images with boxes, scaled to fit into a square and padded on the right and at the bottom.

    They are read once if they fit into memory; otherwise worker processes read them ahead of their use. Boxes are
    clipped to their images; boxes that are then empty are dropped, and their number is printed. Images without boxes
    are kept.
    """

    default_teacher = "fasterrcnn/resnet50"
    default_student = "fasterrcnn/resnet18"
    task = "detection"
    default_size = 320

    def __init__(self, config: DataConfig | None = None) -> None:
        super().__init__(config)
        self._is_flipped = is_flipped(self.config, usual=True)
        self._files: dict[Part, AnnotatedFiles | None] = {}
        self._train: DetectionSet | None = None

    @abstractmethod
    def find(self, part: Part) -> AnnotatedFiles | None:
        """Read the files and objects of a part, or return None if the data set does not have that part."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the C object classes, starting with class 1."""
        return self._training_files().class_names

    def training_images(self) -> tuple[ImageSet, int]:
        """Load the training images and the number of classes."""
        files = self._training_files()
        if self._train is None:
            self._train = self._image_set(files, is_train=True)
            if not self._train.labels.any():
                raise UsageError(f"{files.name} has no box to train on")
            _tell_of_empty_classes(files)
        return self._train, len(files.class_names)

    def validation_set(self) -> ImageSet | None:
        """Load the data's own validation images, or None if they are to be drawn from the training images."""
        return self._other_part("validation")

    def test_set(self) -> ImageSet | None:
        """Load the test set, or None if there is none."""
        return self._other_part("test")

    def _found(self, part: Part) -> AnnotatedFiles | None:
        if part not in self._files:
            with reading(self.config.root):
                files = self.find(part)
                if files is not None:
                    _check(files)
                self._files[part] = files
        return self._files[part]

    def _training_files(self) -> AnnotatedFiles:
        files = self._found("train")
        if files is None:
            raise UsageError(f"there are no training images in {self.config.root}")
        return files

    def _other_part(self, part: Part) -> ImageSet | None:
        files, known = self._found(part), self.class_names
        if files is None:
            return None
        if files.class_names != known:
            raise UsageError(
                f"{files.name} has the classes {', '.join(files.class_names)}, the training images {', '.join(known)}"
            )
        return self._image_set(files, is_train=False)

    def _image_set(self, files: AnnotatedFiles, is_train: bool) -> DetectionSet:
        config = self.config
        size = config.image_size or self.default_size
        annotations = _annotations(files, size)
        reader = LetterboxReader(files.paths, annotations.sizes, size, _COLOUR)
        preprocessing = Preprocessing(*NORMALIZATIONS["imagenet"], flip=is_train and self._is_flipped)
        if len(files.paths) * 3 * size**2 <= MEMORY_LIMIT:
            pixels: list[Tensor] = []
            good = readable(reader, config, pixels)
            return MemoryDetectionSet.of(torch.stack(pixels), annotations.take(good), preprocessing)
        if config.damaged_images == "refuse":
            for path in files.paths:
                if not path.is_file():
                    raise UsageError(f"there is no image {path}; --damaged-images skip leaves missing files out")
        else:
            good = readable(reader, config)
            annotations = annotations.take(good)
            reader = LetterboxReader([files.paths[place] for place in good], annotations.sizes, size, _COLOUR)
        return StreamedDetectionSet.of(reader, annotations, preprocessing, config.workers)


def _check(files: AnnotatedFiles) -> None:
    """Check that images have an area, and boxes numbers as corners."""
    for path, size in zip(files.paths, files.sizes, strict=True):
        if not all(0 < side <= _LARGEST_SIDE for side in size):
            raise UsageError(f"{files.name}: the image {path} cannot be {size[0]} by {size[1]} pixels")
    for place, corners, *_ in files.rows:
        if not all(map(math.isfinite, corners)):
            raise UsageError(f"{files.name}: a box in {files.paths[place]} has corners that are no numbers")


def _tell_of_empty_classes(files: AnnotatedFiles) -> None:
    used = {row[2] for row in files.rows}
    empty = [name for number, name in enumerate(files.class_names, start=1) if number not in used]
    if empty:
        tell(
            f"{files.name} has no box of {len(empty)} of its {len(files.class_names)} classes, which networks learn to "
            f"tell all the same: {', '.join(empty[:5])}{', …' if len(empty) > 5 else ''}"
        )


def _annotations(files: AnnotatedFiles, size: int) -> Annotations:
    """Join a part's objects with boxes clipped to the images, and print how many boxes are dropped."""
    objects, sizes = Objects.of_rows(files.rows), torch.tensor(files.sizes)
    visible = objects.inside(sizes, size, size)
    if len(visible) < len(objects):
        count = len(objects) - len(visible)
        tell(f"boxes of {files.name} without area in their image, left out: {count}")
    return Annotations.of_objects(sizes, visible, files.class_names)
