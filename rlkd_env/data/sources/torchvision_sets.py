"""CIFAR-10, CIFAR-100 and Fashion-MNIST through torchvision, or from an ``.npz`` file of their name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torchvision

from rlkd_env.data.normalization import NORMALIZATIONS
from rlkd_env.data.sources.arrays import Arrays, read_arrays
from rlkd_env.errors import UsageError
from rlkd_env.utils.choices import Augmentation


class _SmallSet(Arrays):
    """A data set of torchvision that fits into memory.

    It is read from NAME.npz in the data folder if that exists, otherwise from torchvision's files, whose checksums
    torchvision verifies.
    """

    name: str
    folder: str
    """The folder in which torchvision keeps the files."""
    dataset_class: Any
    usual_augmentation: Augmentation = "crop_flip"

    def arrays(self) -> tuple[dict[str, np.ndarray], str]:
        """Read the arrays and return them with the name of what was read."""
        root = self.config.root
        file = root if root.suffix == ".npz" else root / f"{self.name}.npz"
        if file.is_file():
            return read_arrays(file), str(file)
        arrays: dict[str, np.ndarray] = {}
        for part, is_train in (("train", True), ("test", False)):
            try:
                dataset = self.dataset_class(str(root), train=is_train, download=self.config.download)
            except RuntimeError:
                raise UsageError(
                    f"{self.name} is neither {file} nor in {root / self.folder}, or its files are damaged: "
                    "pass --download, or the folder that holds it as --data-path"
                ) from None
            except OSError as error:  # a network error
                raise UsageError(f"{self.name} could not be downloaded to {root}: {error}") from None
            arrays[f"x_{part}"], arrays[f"y_{part}"] = np.asarray(dataset.data), np.asarray(dataset.targets)
        return arrays, f"{self.name} in {root}"


class CIFAR10(_SmallSet):
    """50,000 training and 10,000 test images of 10 classes, 32 by 32 in colour."""

    name, folder, dataset_class = "cifar10", "cifar-10-batches-py", torchvision.datasets.CIFAR10
    statistics = NORMALIZATIONS["cifar10"]


class CIFAR100(_SmallSet):
    """50,000 training and 10,000 test images of 100 classes, 32 by 32 in colour."""

    name, folder, dataset_class = "cifar100", "cifar-100-python", torchvision.datasets.CIFAR100
    statistics = NORMALIZATIONS["cifar100"]  # published weights expect these


class FashionMNIST(_SmallSet):
    """60,000 training and 10,000 test images of 10 classes, 28 by 28 in grey."""

    name, folder, dataset_class = "fashion_mnist", "FashionMNIST", torchvision.datasets.FashionMNIST
    usual_augmentation = "flip"
    default_teacher = "cnn32"
    default_student = "cnn8"
