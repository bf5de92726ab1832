"""Data that Python code hands over as objects: arrays, or torch ``Dataset`` objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from rlkd_env.data.config import DataConfig
from rlkd_env.data.sources.arrays import ARRAY_NAMES, PARTS, Arrays
from rlkd_env.data.sources.user_dataset import UserDataset
from rlkd_env.data.splits import Part
from rlkd_env.errors import UsageError, unknown_name


class ArrayObjects(Arrays):
    """Images and classes in arrays or tensors; see :class:`~rlkd_env.data.sources.arrays.Arrays` for their form.

    There are ``x_train`` and ``y_train``, and perhaps ``x_validation``, ``y_validation``, ``x_test``, ``y_test``.
    """

    def __init__(self, config: DataConfig, arrays: Mapping[str, Any]) -> None:
        super().__init__(config)
        for name in arrays:
            if name not in ARRAY_NAMES:
                raise unknown_name("array", name, ARRAY_NAMES)
        for part in PARTS:
            names = {f"x_{part}", f"y_{part}"}
            missing = names - arrays.keys()
            if missing and (part == "train" or names & arrays.keys()):
                raise UsageError(f"the data lack the array {min(missing)}")
        self._arrays = {name: _as_array(values) for name, values in arrays.items()}

    def arrays(self) -> tuple[dict[str, np.ndarray], str]:
        """Return the arrays that were given."""
        return self._arrays, "the data"


class DatasetObjects(UserDataset):
    """Images and classes in torch ``Dataset`` objects of ``(image, label)``; see :class:`UserDataset` for their form.

    Without a Dataset of validation images some of the training images are taken.
    """

    def __init__(
        self,
        config: DataConfig,
        train: Dataset[Any],
        test: Dataset[Any] | None = None,
        validation: Dataset[Any] | None = None,
    ) -> None:
        super().__init__(config)
        datasets: dict[Part, Dataset[Any] | None] = {"train": train, "validation": validation, "test": test}
        self.factory = lambda split: datasets[split]


def _as_array(values: Any) -> np.ndarray:
    return values.numpy(force=True) if isinstance(values, torch.Tensor) else np.asarray(values)
