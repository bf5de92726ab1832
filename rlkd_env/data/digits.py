"""The 1,797 handwritten 8 by 8 digits that ship with scikit-learn: real data without a download."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from rlkd_env.data.splits import DataSource, ImageSet, Splits

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


def _stratified(indices: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``size`` of the indices with every class in its share; return the drawn ones and the rest."""
    labels = _load()[1][indices]
    drawn, rest = train_test_split(indices, train_size=size, stratify=labels, random_state=_SPLIT_SEED)
    return drawn, rest


def _image_set(indices: np.ndarray) -> ImageSet:
    images, labels = _load()
    return ImageSet(torch.from_numpy(images[indices]), torch.from_numpy(labels[indices]))


class Digits(DataSource):
    """800 images train the teacher and 300 of those the student; 150 probe, 150 validation, 697 test.

    So few images are the regime in which a student of 12 units learns more from a teacher than from the labels.
    """

    default_teacher = "digits_cnn"
    default_student = "mlp12"

    def splits(self) -> Splits:
        """Return the stratified parts; the same at every call."""
        teacher_train, rest = self._teacher_and_rest()
        student_train, _ = _stratified(teacher_train, STUDENT_IMAGES)
        probe, rest = _stratified(rest, PROBE_IMAGES)
        validation, _ = _stratified(rest, VALIDATION_IMAGES)
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
        _, rest = _stratified(rest, PROBE_IMAGES)
        _, test = _stratified(rest, VALIDATION_IMAGES)
        return _image_set(test)

    @staticmethod
    def _teacher_and_rest() -> tuple[np.ndarray, np.ndarray]:
        return _stratified(np.arange(len(_load()[1])), TEACHER_IMAGES)
