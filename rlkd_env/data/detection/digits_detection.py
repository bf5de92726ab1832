"""Detection without a download: scenes composed of the handwritten digits in scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch

from rlkd_env.data.augmentation import Preprocessing
from rlkd_env.data.config import USUAL_PROBE, DataConfig
from rlkd_env.data.detection.annotations import Annotations, Objects
from rlkd_env.data.detection.image_sets import MemoryDetectionSet, is_flipped
from rlkd_env.data.detection.scenes import MIN_SIZE, compose
from rlkd_env.data.sources.digits import Digits, load_digit_images
from rlkd_env.data.splits import LARGEST_PART, DataSource, Splits
from rlkd_env.errors import UsageError

TEACHER_SCENES = 800
STUDENT_SCENES = 300
VALIDATION_SCENES = 100
TEST_SCENES = 300
"""The default sizes of the parts."""
SIZE = 64

_PARTS = ("teacher", "probe", "validation", "test")
_MEAN, _STD = (0.24,), (0.135,)
"""The mean and std of the pixels of all scenes."""


class DigitsDetection(DataSource):
    """800 scenes train the teacher and 300 of those the student; at most 80 probe, 100 validate and 300 test.

    A scene has up to six digits, from a sixth to half of its height, among strokes and pieces of digits. Boxes enclose
    the digits' ink. The handwritten digits are split as in Digits, so none appears in scenes of two parts; the test
    scenes are the same for every ``split_seed``. If a part is made larger, further scenes of the same digits are added.
    """

    default_teacher = "fasterrcnn/resnet20"
    default_student = "fasterrcnn/resnet8"
    trains_its_teacher = True
    teacher_recipe: Mapping[str, Any] = {"epochs": 15, "batch_size": 8, "learning_rate": 3e-3, "proposals": 64}
    task = "detection"

    def __init__(self, config: DataConfig | None = None) -> None:
        super().__init__(config)
        self._is_flipped = is_flipped(self.config, usual=False)
        self._size = self.config.image_size or SIZE
        if self._size < MIN_SIZE:
            raise UsageError(f"scenes of digits need an image_size of at least {MIN_SIZE}, not {self._size}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The ten digits; 0 has class 1."""
        return tuple("0123456789")

    def splits(self) -> Splits:
        """Compose the parts that a run may see; the same at every call.

        Raises:
            UsageError: If a part would have no scene, or the student more than the teacher.
        """
        config = self.config
        teacher_size = config.teacher_images or TEACHER_SCENES
        student_size = config.train_images or min(STUDENT_SCENES, teacher_size)
        if student_size > teacher_size:
            raise UsageError(
                f"the training part cannot have {student_size} images: {teacher_size} are there to draw from"
            )
        teacher = self._compose("teacher", teacher_size)
        order = torch.arange(teacher_size)
        return Splits(
            train=teacher.subset(order[:student_size]),
            probe=self._compose("probe", min(config.probe_size or USUAL_PROBE, teacher_size // 10)),
            validation=self._compose("validation", config.validation_images or VALIDATION_SCENES),
            teacher_train=teacher,
            num_classes=len(self.class_names),
            reserve=teacher.subset(order[student_size:][:LARGEST_PART]),
        )

    def test_set(self) -> MemoryDetectionSet:
        """Compose 300 scenes of digits that are in no part of :meth:`splits`, whatever its seed."""
        return self._compose("test", TEST_SCENES)

    @cached_property
    def _digits(self) -> dict[str, np.ndarray]:
        return Digits(DataConfig(split_seed=self.config.split_seed)).parts()

    def _compose(self, part: str, count: int) -> MemoryDetectionSet:
        if count < 1:
            raise UsageError(f"the {part} part cannot have {count} images")
        images, digits = (values[self._digits[part]] for values in load_digit_images())
        entropy = (_PARTS.index(part), 0 if part == "test" else self.config.split_seed)
        generators = (np.random.default_rng((*entropy, number)) for number in range(count))
        scenes = [compose(images[:, 0], digits, self._size, generator) for generator in generators]
        counts = torch.tensor([len(scene.digits) for scene in scenes])
        corners = torch.from_numpy(np.concatenate([scene.corners for scene in scenes]))
        objects = Objects(
            images=torch.arange(count).repeat_interleave(counts),
            corners=corners,
            classes=torch.from_numpy(np.concatenate([scene.digits for scene in scenes])) + 1,
            is_crowd=torch.zeros(len(corners), dtype=torch.bool),
            areas=(corners[:, 2:] - corners[:, :2]).prod(dim=1),
        )
        sizes = torch.full((count, 2), self._size)
        pixels = torch.from_numpy(np.stack([scene.pixels for scene in scenes])).unsqueeze(1)
        preprocessing = Preprocessing(_MEAN, _STD, flip=self._is_flipped and part == "teacher")
        return MemoryDetectionSet.of(pixels, Annotations.of_objects(sizes, objects, self.class_names), preprocessing)
