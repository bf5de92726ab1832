"""Images in one ``.npz`` file: ``x_train``, ``y_train`` and perhaps those of validation and test images."""

from __future__ import annotations

import math
import zipfile
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from rlkd_env.data.augmentation import ImageChanges, Preprocessing
from rlkd_env.data.images import ImageSet, MemoryImages
from rlkd_env.data.splits import LabelledSource
from rlkd_env.errors import UsageError
from rlkd_env.utils.choices import Augmentation
from rlkd_env.utils.files import check_memory, check_regular
from rlkd_env.utils.notices import tell

_CHANNELS = (1, 3)
PARTS = ("train", "validation", "test")
ARRAY_NAMES = tuple(f"{letter}_{part}" for part in PARTS for letter in "xy")
_SHORT = {"x_val": "x_validation", "y_val": "y_validation"}


class Arrays(LabelledSource):
    """A user's own arrays: pixels ``(n, height, width)`` or with 1 or 3 channels last or first, uint8 or in [0, 1].

    They are normalised by the mean and std of the training images' channels, or by given ones.
    """

    default_teacher = "resnet56"
    default_student = "resnet20"
    usual_augmentation: Augmentation = "none"
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and std of the channels; None takes those of the training images."""

    def training_images(self) -> tuple[ImageSet, int]:
        """Load the training images and the number of classes."""
        train = self._parts[0]
        return train, int(train.labels.max()) + 1

    def test_set(self) -> ImageSet | None:
        """Load the test set, or None if there is none."""
        return self._parts[1]

    def arrays(self) -> tuple[dict[str, np.ndarray], str]:
        """Read the arrays of :data:`ARRAY_NAMES` that are there; return them with the file's name."""
        return read_arrays(self.config.root), str(self.config.root)

    def preprocessing(self, pixels: Tensor) -> Preprocessing:
        """Return the preprocessing for the training pixels ``(n, channels, height, width)``."""
        mean, std = self.config.constants(pixels.shape[1]) or self.statistics or channel_statistics(pixels)
        augmentation = self.config.augmentation
        if augmentation == "auto":
            augmentation = self.usual_augmentation
        if augmentation == "resized_crop":
            raise UsageError("the augmentation resized_crop needs image files; here it can be none, flip or crop_flip")
        crop_padding = pixels.shape[-1] // 8 if augmentation == "crop_flip" else 0
        flip = augmentation in ("flip", "crop_flip")
        return Preprocessing(mean, std, crop_padding, flip, ImageChanges.of(self.config))

    def validation_set(self) -> ImageSet | None:
        """Return the validation images of the data, prepared like the training images; None if there are none."""
        arrays, name = self._read
        if "x_validation" not in arrays:
            return None
        training, num_classes = self.training_images()
        pixels = self._resized(as_pixels(arrays["x_validation"], f"x_validation of {name}"))
        if tuple(pixels.shape[1:]) != training.image_shape:
            raise UsageError(
                f"the validation images of {name} have the shape {tuple(pixels.shape[1:])}, "
                f"the training images {training.image_shape}"
            )
        labels = as_labels(arrays["y_validation"], len(pixels), f"y_validation of {name}", num_classes)
        return MemoryImages(pixels, labels, training.preprocessing)

    @cached_property
    def _read(self) -> tuple[dict[str, np.ndarray], str]:
        return self.arrays()

    @cached_property
    def _parts(self) -> tuple[MemoryImages, MemoryImages | None]:
        """The training images and the test images, if there are any."""
        arrays, name = self._read
        pixels = self._resized(as_pixels(arrays["x_train"], f"x_train of {name}"))
        labels = as_labels(arrays["y_train"], len(pixels), f"y_train of {name}")
        train = MemoryImages(pixels, labels, self.preprocessing(pixels))
        if "x_test" not in arrays:
            return train, None
        test_pixels = self._resized(as_pixels(arrays["x_test"], f"x_test of {name}"))
        test_labels = as_labels(arrays["y_test"], len(test_pixels), f"y_test of {name}", int(labels.max()) + 1)
        if test_pixels.shape[1:] != pixels.shape[1:]:
            raise UsageError(
                f"the test images of {name} have the shape {tuple(test_pixels.shape[1:])}, "
                f"the training images {tuple(pixels.shape[1:])}"
            )
        return train, MemoryImages(test_pixels, test_labels, train.preprocessing)

    def _resized(self, pixels: Tensor) -> Tensor:
        size = self.config.image_size
        return pixels if size is None else transforms.resize(pixels, [size, size], antialias=True)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read an ``.npz`` file's arrays without unpickling anything."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}: pass an .npz with x_train and y_train as --data-path")
    check_regular(path)
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as file:
            found = {_SHORT.get(name, name): name for name in file.files}
            arrays = {name: file[found[name]] for name in ARRAY_NAMES if name in found}
    except UsageError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds for a file that is damaged
        raise UsageError(f"{path} is not an .npz file of plain arrays: {error}") from None
    labels = [name.replace("x", "y") for name in arrays if name.startswith("x_")]
    for name in ("x_train", "y_train", *labels):
        if name not in arrays:
            raise UsageError(f"{path} lacks the array {name}; it holds {', '.join(found) or 'none'}")
    if left_out := [name for name in found if name not in ARRAY_NAMES]:
        tell(f"{path}: the arrays {', '.join(left_out)} are left out: known are {', '.join(ARRAY_NAMES)}")
    return arrays


def _check_sizes(path: Path) -> None:
    """Check what the headers of an ``.npz`` file's arrays say before memory is asked for."""
    total = 0
    with zipfile.ZipFile(path) as archive:
        for name in (*ARRAY_NAMES, *_SHORT):
            if f"{name}.npy" not in archive.namelist():
                continue
            with archive.open(f"{name}.npy") as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(member)
            size, there = math.prod(shape) * dtype.itemsize, archive.getinfo(f"{name}.npy").file_size
            if size > there and not dtype.hasobject:
                raise UsageError(f"{path} is damaged: {name} of shape {shape} has {there} of its {size} bytes")
            total += there
    check_memory(total, str(path))


def as_pixels(values: np.ndarray, name: str) -> Tensor:
    """Return images as ``(n, channels, height, width)``, uint8 or float32 in [0, 1]."""
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4 and values.shape[-1] in _CHANNELS:
        values = values.transpose(0, 3, 1, 2)
    if values.ndim != 4 or values.shape[1] not in _CHANNELS or 0 in values.shape:
        raise UsageError(
            f"{name} has the shape {values.shape}; expected (n, height, width) or that with 1 or 3 channels last"
        )
    if values.dtype != np.uint8:
        if not np.issubdtype(values.dtype, np.floating) or not ((values >= 0) & (values <= 1)).all():
            raise UsageError(f"the pixels of {name} must be uint8, or floating-point numbers from 0 to 1")
        values = values.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(values))


def as_labels(values: np.ndarray, count: int, name: str, num_classes: int | None = None) -> Tensor:
    """Return classes ``(count,)`` as int64."""
    if values.size != count or not np.issubdtype(values.dtype, np.integer):
        raise UsageError(f"{name} must hold one whole number for each of the {count} images")
    labels = values.reshape(-1).astype(np.int64)
    if labels.min() < 0:
        raise UsageError(f"{name} holds the class {labels.min()}: classes count from 0")
    if num_classes is not None and labels.max() >= num_classes:
        raise UsageError(f"{name} holds the class {labels.max()}, but the training images have {num_classes} classes")
    return torch.from_numpy(labels)


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of every channel of ``(n, channels, height, width)``, for values in [0, 1]."""
    scale = 255.0 if pixels.dtype == torch.uint8 else 1.0
    means, stds = [], []
    for channel in pixels.unbind(dim=1):
        values = channel.double()
        means.append(float(values.mean()) / scale)
        stds.append(max(float(values.std()) / scale, 1e-3))
    return tuple(means), tuple(stds)
