"""The 1,797 handwritten 8 by 8 digits that ship with scikit-learn: real data without a download."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from sklearn.datasets import load_digits

from rlkd_env.data.config import DataConfig
from rlkd_env.data.images import ImageSet, MemoryImages
from rlkd_env.data.splits import DataSource, Splits, stratified
from rlkd_env.registry import UsageError

_SPLIT_SEED = 0
TEACHER_IMAGES = 800
STUDENT_IMAGES = 300
PROBE_IMAGES = 150
VALIDATION_IMAGES = 150
TEST_IMAGES = 697


@lru_cache(maxsize=1)
def _load() -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = load_digits(return_X_y=True)
    return (pixels / 16.0).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.int64)


def _stratified(indices: np.ndarray, size: int, part: str) -> tuple[np.ndarray, np.ndarray]:
    return stratified(indices, _load()[1], size, _SPLIT_SEED, part)


def _image_set(indices: np.ndarray) -> ImageSet:
    images, labels = _load()
    return MemoryImages(torch.from_numpy(images[indices]), torch.from_numpy(labels[indices]))


class Digits(DataSource):
    """800 images train the teacher and 300 of those the student; 150 probe, 150 validation, 697 test.

    So few images are the regime in which a student of 12 units learns more from a teacher than from the labels.
    """

    default_teacher = "digits_cnn"
    default_student = "mlp12"
    trains_its_teacher = True

    def __init__(self, config: DataConfig | None = None) -> None:
        super().__init__(config)
        for option in ("train_images", "teacher_images", "validation_images", "split_seed", "image_size"):
            if getattr(self.config, option) != getattr(DataConfig(), option):
                raise UsageError(f"the parts of digits are fixed: {option} has no effect there")

    def splits(self) -> Splits:
        """Return the stratified parts; the same at every call."""
        teacher_train, rest = self._teacher_and_rest()
        student_train, _ = _stratified(teacher_train, STUDENT_IMAGES, "training")
        probe, rest = _stratified(rest, PROBE_IMAGES, "probe")
        validation, _ = _stratified(rest, VALIDATION_IMAGES, "validation")
        return Splits(
            train=_image_set(student_train),
            probe=_image_set(probe),
            validation=_image_set(validation),
            teacher_train=_image_set(teacher_train),
            num_classes=10,
        )

    def test_set(self) -> ImageSet:
        """Return the 697 images that no part of :meth:`splits` holds."""
        _, rest = self._teacher_and_rest()
        _, rest = _stratified(rest, PROBE_IMAGES, "probe")
        _, test = _stratified(rest, VALIDATION_IMAGES, "validation")
        return _image_set(test)

    @staticmethod
    def _teacher_and_rest() -> tuple[np.ndarray, np.ndarray]:
        return _stratified(np.arange(len(_load()[1])), TEACHER_IMAGES, "teacher")
