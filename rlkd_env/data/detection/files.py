"""Sources of annotated image files: what COCO's format and Pascal VOC's have in common."""

from __future__ import annotations

import sys
from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from rlkd_env.data.config import DataConfig
from rlkd_env.data.detection.annotations import Annotations, Objects
from rlkd_env.data.detection.image_sets import DetectionSet, MemoryDetectionSet, StreamedDetectionSet, is_flipped
from rlkd_env.data.detection.letterbox import LetterboxReader
from rlkd_env.data.images import ImageSet, Preprocessing
from rlkd_env.data.sources.image_folder import IMAGENET_DEVIATION, IMAGENET_MEAN
from rlkd_env.data.splits import LabelledSource
from rlkd_env.data.streamed import MEMORY_LIMIT, readable
from rlkd_env.errors import UsageError

Part = Literal["train", "validation", "test"]

_COLOUR = (124, 116, 104)
"""ImageNet's mean, so that the padding is close to 0 for a network."""


@dataclass(frozen=True, eq=False)
class AnnotatedFiles:
    """Image files and their objects.

    Attributes:
        name: where the annotations stand, for messages.
        paths: of the n images.
        sizes: width and height of every image.
        rows: of every object the position of its image, its corners in pixels of the file, its class from 1, whether it
            stands for many or need not be found, and its area in square pixels.
        class_names: of the C classes, that of class 1 first.
    """

    name: str
    class_names: tuple[str, ...]
    paths: list[Path] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    rows: list[tuple[int, tuple[float, float, float, float], int, bool, float]] = field(default_factory=list)


class DetectionFiles(LabelledSource):
    """Images with boxes, scaled to fit into a square and padded on the right and at the bottom.

    They are read once where they fit into memory, else by worker processes, ahead of their use. Boxes are cut at the
    borders of their images. Those of which nothing is left are left out, and their number is said; images without
    boxes stay.
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
        """Read which files a part has and what is in them; None where the data set does not come with that part.

        Raises:
            UsageError: if the annotations are missing or damaged; training files are always there.
        """

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the C classes of objects, that of class 1 first.

        Raises:
            UsageError: if the annotations are missing or damaged.
        """
        return self._training_files().class_names

    def training_images(self) -> tuple[ImageSet, int]:
        """Load all images that are not for testing or validation, and the number of classes.

        Raises:
            UsageError: if they are missing or damaged, or there is no object to train on.
        """
        files = self._training_files()
        if self._train is None:
            self._train = self._image_set(files, is_train=True)
            if not self._train.labels.any():
                raise UsageError(f"{files.name} has no box to train on")
        return self._train, len(files.class_names)

    def validation_set(self) -> ImageSet | None:
        """Load the validation images that the data comes with; None where they are drawn from the training images.

        Raises:
            UsageError: if they are missing or damaged, or have other classes.
        """
        return self._other_part("validation")

    def test_set(self) -> ImageSet | None:
        """Load the test set, or None where there is none.

        Raises:
            UsageError: likewise.
        """
        return self._other_part("test")

    def _found(self, part: Part) -> AnnotatedFiles | None:
        if part not in self._files:
            self._files[part] = self.find(part)
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
        size = self.default_size if config.image_size is None else config.image_size
        if size < 1:
            raise UsageError(f"images must be at least 1 by 1, not {size} by {size}")
        annotations = _annotations(files, size)
        reader = LetterboxReader(files.paths, annotations.sizes, size, _COLOUR)
        preprocessing = Preprocessing(IMAGENET_MEAN, IMAGENET_DEVIATION, flip=is_train and self._is_flipped)
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


def _annotations(files: AnnotatedFiles, size: int) -> Annotations:
    """Put a part's objects together, with boxes cut at the borders, and say how many are left out."""
    objects, sizes = Objects.of_rows(files.rows), torch.tensor(files.sizes)
    visible = objects.inside(sizes, size, size)
    if len(visible) < len(objects):
        count = len(objects) - len(visible)
        print(f"rlkd: boxes of {files.name} without area in their image, left out: {count}", file=sys.stderr)  # noqa: T201
    return Annotations.of_objects(sizes, visible, files.class_names)
