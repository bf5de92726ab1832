"""Image files, whole, in images of one size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from rlkd_env.data.detection.annotations import fitted_sizes
from rlkd_env.data.streamed import PathReader, Unreadable


class LetterboxReader(PathReader):
    """Image files that are scaled to fit into a square, at its top left, the rest of which has one colour.

    Args:
        paths: of the files.
        sizes: ``(n, 2)`` width and height that the files must have, as their annotations say.
        size: height and width of the square.
        colour: red, green and blue of the rest, from 0 to 255.
    """

    is_random = False

    def __init__(self, paths: list[Path], sizes: Tensor, size: int, colour: tuple[int, int, int]) -> None:
        super().__init__(paths, size)
        self._sizes = sizes
        self._fitted = fitted_sizes(sizes, size, size)
        self._colour = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1)

    def read(self, position: int, is_augmented: bool) -> Tensor | Unreadable:  # noqa: ARG002 (a set mirrors its images)
        """Return an image as RGB, uint8."""
        image = self.open(position)
        if isinstance(image, Unreadable):
            return image
        expected = tuple(self._sizes[position].tolist())
        if image.size != expected:
            return Unreadable(
                f"the image {self.paths[position]} is {image.width} by {image.height}, "
                f"but its annotations are for {expected[0]} by {expected[1]}"
            )
        width, height = self._fitted[position].tolist()
        square = self._colour.repeat(1, *self.image_shape[1:])
        square[:, :height, :width] = transforms.pil_to_tensor(transforms.resize(image, [height, width]))
        return square
