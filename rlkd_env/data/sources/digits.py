"""The 1,797 handwritten 8 by 8 digits that ship with scikit-learn: real data without a download."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from sklearn.datasets import load_digits

from rlkd_env.data.augmentation import ImageChanges, Preprocessing
from rlkd_env.data.config import DataConfig
from rlkd_env.data.images import ImageSet, MemoryImages
from rlkd_env.data.splits import DataSource, Splits, stratified
from rlkd_env.errors import UsageError

TEACHER_IMAGES = 800
STUDENT_IMAGES = 300
PROBE_IMAGES = 150
VALIDATION_IMAGES = 150
"""The default sizes of the parts; the remaining 697 images are the test set."""


@lru_cache(maxsize=1)
def load_digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Load all pixels ``(1797, 1, 8, 8)`` in [0, 1] and classes ``(1797,)``."""
    pixels, labels = load_digits(return_X_y=True)
    return (pixels / 16.0).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.int64)


class Digits(DataSource):
    """800 images train the teacher and 300 of those the student; 150 probe, 150 validate and 697 test.

    With so few images a student of 12 units learns more from a teacher than from the labels. If the sizes of the parts
    are changed, the test set consists of the remaining images; it is the same for every ``split_seed``.
    """

    default_teacher = "digits_cnn"
    default_student = "mlp12"
    trains_its_teacher = True

    def __init__(self, config: DataConfig | None = None) -> None:
        super().__init__(config)
        if self.config.image_size is not None:
            raise UsageError("the images of digits are 8 by 8 and cannot be resized: leave out image_size")

    def splits(self) -> Splits:
        """Return the stratified parts; the same at every call."""
        parts = self.parts()
        return Splits(
            train=self._image_set(parts["training"]),
            probe=self._image_set(parts["probe"]),
            validation=self._image_set(parts["validation"]),
            teacher_train=self._image_set(parts["teacher"]),
            num_classes=10,
            reserve=self._image_set(parts["reserve"]),
        )

    def test_set(self) -> ImageSet:
        """Return the images, 697 by default, that are in no part of :meth:`splits`, whatever its seed."""
        return self._image_set(self.parts()["test"])

    def _image_set(self, indices: np.ndarray) -> ImageSet:
        images, labels = load_digit_images()
        preprocessing = Preprocessing(
            *(self.config.constants(channels=1) or ((), ())), changes=ImageChanges.of(self.config)
        )
        return MemoryImages(torch.from_numpy(images[indices]), torch.from_numpy(labels[indices]), preprocessing)

    def parts(self) -> dict[str, np.ndarray]:
        """Return the positions of every part; those of the test set do not depend on the split's seed."""
        parts = self._draw(np.arange(len(load_digit_images()[1])), seed=0)
        if self.config.split_seed:
            others = np.setdiff1d(np.arange(len(load_digit_images()[1])), parts["test"])
            parts |= self._draw(others, self.config.split_seed) | {"test": parts["test"]}
        return parts

    def _draw(self, positions: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """Draw the parts from the positions; the test set is what is left."""
        labels, config = load_digit_images()[1], self.config
        parts: dict[str, np.ndarray] = {}

        def draw(part: str, positions: np.ndarray, size: int) -> np.ndarray:
            parts[part], rest = stratified(positions, labels, size, seed, part)
            return rest

        rest = draw("teacher", positions, config.teacher_images or TEACHER_IMAGES)
        parts["reserve"] = draw("training", parts["teacher"], config.train_images or STUDENT_IMAGES)
        rest = draw("probe", rest, PROBE_IMAGES)
        parts["test"] = draw("validation", rest, config.validation_images or VALIDATION_IMAGES)
        return parts
