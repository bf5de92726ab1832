"""A reader that fits whole image files into images of one size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from rlkd_env.data.detection.annotations import fitted_sizes
from rlkd_env.data.streamed import PathReader, Unreadable

_TURNED = (
    ": its EXIF orientation turns it, and boxes must be those of the picture as it is shown; "
    "annotate that one, or remove the orientation"
)


class LetterboxReader(PathReader):
    """A reader of image files, scaled to fit into the top left of a square whose rest has one colour.

    The files must have the width and height in ``sizes`` ``(n, 2)``, which are those of their annotations.
    """

    is_random = False

    def __init__(self, paths: list[Path], sizes: Tensor, size: int, colour: tuple[int, int, int]) -> None:
        super().__init__(paths, size)
        self._sizes = sizes
        self._fitted = fitted_sizes(sizes, size, size)
        self._colour = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1)

    def read(self, position: int, is_augmented: bool) -> Tensor | Unreadable:  # noqa: ARG002 (the set mirrors its images)
        """Return an RGB image, uint8."""
        image = self.open(position)
        if isinstance(image, Unreadable):
            return image
        expected = tuple(self._sizes[position].tolist())
        if image.size != expected:
            return Unreadable(
                f"the image {self.paths[position]} is {image.width} by {image.height}, "
                f"but its annotations are for {expected[0]} by {expected[1]}"
                + (_TURNED if image.size == expected[::-1] else "")
            )
        width, height = self._fitted[position].tolist()
        square = self._colour.repeat(1, *self.image_shape[1:])
        square[:, :height, :width] = transforms.pil_to_tensor(transforms.resize(image, [height, width]))
        return square
