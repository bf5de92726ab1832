"""Images that stay on disk and are read ahead of their use by worker processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from rlkd_env.data.augmentation import PLAIN, Preprocessing
from rlkd_env.data.config import DataConfig
from rlkd_env.data.decoding import as_seen, opened
from rlkd_env.data.images import ImageSet, MemoryImages, Request, in_stronger_views
from rlkd_env.errors import UsageError
from rlkd_env.utils.notices import tell
from rlkd_env.utils.processes import end_with_parent, leave_signals_to_parent, starting_children
from rlkd_env.utils.randomness import generators_kept, seed_generators
from rlkd_env.utils.seeds import mixed_seed

if TYPE_CHECKING:
    from typing_extensions import Self

MEMORY_LIMIT = 2 * 2**30
"""Sets with more bytes of pixels than this are not kept in memory."""
SMALL_SIZE = 64
"""Images up to this height and width are used whole; larger ones are centre-cropped, as is usual for ImageNet."""


class Unreadable(NamedTuple):
    """An image that could not be read; an exception would lose its one-line message on the way from a worker."""

    reason: str


class Reader(ABC):
    """Reads single images of one shape, in a worker process or in this one; random ones may differ from plain ones."""

    image_shape: tuple[int, int, int]
    is_random: bool
    is_within_unit = True

    @abstractmethod
    def read(self, position: int, is_augmented: bool) -> Tensor | Unreadable:
        """Return an image of ``image_shape``, uint8 or float32 in ``[0, 1]``; views draw from torch's generator."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash that identifies the images."""


class PathReader(Reader):
    """A reader of image files of any size, converted to square RGB images of a height and width of ``size``."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths = paths
        self.image_shape = (3, size, size)

    def open(self, position: int) -> Image.Image | Unreadable:
        """Return a file's image in RGB, upright and of its own size."""
        try:
            with opened(self.paths[position]) as file:
                if file.mode == "RGB":
                    return as_seen(file)
                warnings.warn("images that are not RGB are converted to RGB", stacklevel=2)
                return as_seen(file).convert("RGB")
        except UsageError as error:
            return Unreadable(str(error))

    def fingerprint(self) -> str:
        """Return a hash of the names and sizes of all files; hashing their contents would take too long."""
        content = hashlib.sha256(repr(self.image_shape).encode())
        for path in self.paths:
            content.update(f"{path.name} {path.stat().st_size}".encode())
        return content.hexdigest()


class FileReader(PathReader):
    """A reader of image files that returns their centre.

    Random views are random parts of the image with ``resized_crop``, and half of them are mirrored with ``flip``.
    """

    def __init__(self, paths: list[Path], size: int, resized_crop: bool, flip: bool) -> None:
        super().__init__(paths, size)
        self.is_random = resized_crop or flip
        shorter_side = round(size * 256 / 224) if size > SMALL_SIZE else size
        self._plain = v2.Compose([v2.Resize(shorter_side), v2.CenterCrop(size)])
        views: list[Any] = [v2.RandomResizedCrop(size)] if resized_crop else [self._plain]
        self._random = v2.Compose([*views, v2.RandomHorizontalFlip(0.5 if flip else 0.0)])

    def read(self, position: int, is_augmented: bool) -> Tensor | Unreadable:
        """Return an RGB image, uint8."""
        image = self.open(position)
        if isinstance(image, Unreadable):
            return image
        return transforms.pil_to_tensor((self._random if is_augmented else self._plain)(image))


@dataclass(frozen=True, eq=False)
class StreamedImages(ImageSet):
    """Images at positions ``(n,)`` of a reader, which reads them whenever they are needed and makes random views.

    Labels are on the device, positions on the CPU. As many processes as ``workers`` read ahead; 0 reads in this one.
    """

    reader: Reader
    positions: Tensor
    labels: Tensor
    preprocessing: Preprocessing
    workers: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The channels, height and width of an image."""
        return self.reader.image_shape

    @property
    def is_random(self) -> bool:
        """Whether training views differ from the images."""
        return self.reader.is_random or self.preprocessing.changes.are_made

    @property
    def is_within_unit(self) -> bool:
        """Whether pixels are known to be from 0 to 1 before they are normalised."""
        return self.reader.is_within_unit

    def in_stronger_views(self) -> Self:
        """Return the set whose random views are changed more strongly; see :meth:`ImageSet.in_stronger_views`."""
        return replace(self, preprocessing=in_stronger_views(self.preprocessing, self.image_shape, self.is_within_unit))

    def take(self, positions: Tensor, view: int | None = None) -> Tensor:
        """Read images ``(N, channels, height, width)`` in this process."""
        return self.to_device(self._read(positions, view))

    def in_memory(self) -> MemoryImages:
        """Return the set with its plain images in memory, read in this process."""
        pixels = self._read(torch.arange(len(self)), None).to(self.labels.device)
        return MemoryImages(pixels, self.labels, self.preprocessing)

    def follow(self, requests: Iterator[Request]) -> Iterator[Tensor]:
        """Read batches ahead in worker processes, which end when the iterator is dropped."""
        return (self.to_device(pixels) for pixels in self.read_ahead(requests))

    def read_ahead(self, requests: Iterator[Request]) -> Iterator[Tensor]:
        """Yield the pixels of each request as :meth:`follow` does, but on the host, pinned for a GPU.

        Raises:
            UsageError: if an image cannot be read.
        """
        batches = ((self.positions[positions.cpu()], view) for positions, view in requests)
        workers = 0 if multiprocessing.current_process().daemon else self.workers  # a worker may have none of its own
        options: dict[str, Any] = {"num_workers": workers, "pin_memory": self.labels.device.type == "cuda"}
        loader = DataLoader(self._reading, batch_size=None, sampler=batches, worker_init_fn=_begin_worker, **options)
        with starting_children():
            return map(_readable_pixels, loader)

    def to_device(self, pixels: Tensor) -> Tensor:
        """Preprocess pixels ``(N, channels, height, width)`` on the device; pinned ones are copied meanwhile."""
        return self.preprocessing.normalize(pixels.to(self.labels.device, non_blocking=True))

    def subset(self, positions: Tensor) -> Self:
        """Return the set of the images at positions ``(m,)``."""
        labels = self.labels[positions.to(self.labels.device)]
        return replace(self, positions=self.positions[positions.cpu()], labels=labels)

    def to(self, device: torch.device) -> Self:
        """Return the set with its images on another device."""
        return replace(self, labels=self.labels.to(device))

    def fingerprint(self) -> str:
        """Return a hash of the reader's images, the positions and the labels."""
        content = hashlib.sha256(self.reader.fingerprint().encode())
        content.update(self.positions.numpy().tobytes())
        content.update(self.labels.cpu().numpy().tobytes())
        return content.hexdigest()

    def _read(self, positions: Tensor, view: int | None) -> Tensor:
        return _readable_pixels(self._reading[(self.positions[positions.cpu()], view)])

    @property
    def _reading(self) -> Reading:
        return Reading(self.reader, self.preprocessing)


def _begin_worker(number: int) -> None:  # noqa: ARG001
    leave_signals_to_parent()
    end_with_parent()


def _readable_pixels(pixels: Tensor | Unreadable) -> Tensor:
    if isinstance(pixels, Unreadable):
        raise UsageError(pixels.reason)
    return pixels


def read_in_order(reader: Reader, count: int) -> Iterator[Tensor | Unreadable]:
    """Yield a reader's first images without random views, decoded by threads, as decoding releases Python's lock."""
    with ThreadPoolExecutor() as pool:
        for first in range(0, count, 512):
            positions = range(first, min(first + 512, count))
            yield from pool.map(lambda position: reader.read(position, is_augmented=False), positions)


def readable(reader: PathReader, config: DataConfig, pixels: list[Tensor] | None = None) -> Tensor:
    """Return the positions of the files that can be read, by reading all in order; append the images to ``pixels``.

    The config says whether damaged files are skipped, with a message, or refused.
    """
    good = []
    for position, image in enumerate(read_in_order(reader, len(reader.paths))):
        if not isinstance(image, Unreadable):
            good.append(position)
            if pixels is not None:
                pixels.append(image)
        elif config.damaged_images == "refuse":
            raise UsageError(f"{image.reason}; --damaged-images skip leaves such files out")
        else:
            tell(f"skipped: {image.reason}")
    if not good:
        raise UsageError(f"none of the images in {config.root} can be read")
    return torch.tensor(good)


class Reading(Dataset[Any]):
    """A Dataset whose items are whole batches, for the workers of a DataLoader.

    A user's transforms may be random without a view too, and then follow from the image's position.
    """

    def __init__(self, reader: Reader, preprocessing: Preprocessing = PLAIN) -> None:
        self._reader, self._change = reader, preprocessing.change

    def __getitem__(self, request: Request) -> Tensor | Unreadable:
        positions, view = request
        images = []
        with generators_kept():
            for position in positions.tolist():
                seed_generators(mixed_seed(position) if view is None else mixed_seed(view, position))
                image = self._reader.read(position, is_augmented=view is not None)
                if isinstance(image, Unreadable):
                    return image
                images.append(image if view is None else self._change(image))
        return torch.stack(images)
