"""Pictures as a person sees them: upright, and with 8 bits a channel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from rlkd_env.errors import UsageError
from rlkd_env.utils.files import check_regular

_GREY_MODES = ("1", "L", "LA", "La")
_PORTABLE_FORMATS = ("PNG", "PPM")
"""Formats in which Pillow brings 16 bits to 32, so that the scale of the values is known."""

_QUARTER_TURNS = (5, 6, 7, 8)
"""The values of the EXIF orientation that exchange width and height."""


@cache
def image_suffixes() -> frozenset[str]:
    """Return the endings, in lower case, of the names of files that Pillow reads as images."""
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(
        suffix for suffix, kind in known if kind in Image.OPEN and Image.MIME.get(kind, "").startswith("image/")
    )


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; what is raised within, too, is told as an error of the file.

    Raises:
        UsageError: If the file is no regular one, is damaged, or has too many pixels.
    """
    try:
        check_regular(path)
        with Image.open(path) as image:
            yield image
    except Exception as error:  # Pillow raises many kinds
        raise UsageError(f"the image {path} cannot be read: {error}") from None


def as_seen(image: Image.Image) -> Image.Image:
    """Return a picture in the mode L or RGB, turned as its EXIF orientation says; alpha channels are dropped.

    Values of 16 bits, and floating-point numbers from 0 to 1, are scaled to 8 bits.

    Raises:
        ValueError: If the scale of its values is not known.
    """
    kind = image.format
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in _PORTABLE_FORMATS):
        return _eight_bits(np.asarray(image) / 65535.0)
    if image.mode == "I":
        raise ValueError("its pixels have 32 bits, and so no known scale: save it with 8 or 16 bits")
    if image.mode == "F":
        values = np.asarray(image)
        if not ((values >= 0.0) & (values <= 1.0)).all():
            raise ValueError(
                "its floating-point pixels are not all from 0 to 1: bring them there, or save it as 8 bits"
            )
        return _eight_bits(values)
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("L" if image.mode in _GREY_MODES else "RGB")


def size_as_seen(image: Image.Image) -> tuple[int, int]:
    """Return a picture's width and height as its EXIF orientation turns it, without decoding it."""
    is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _QUARTER_TURNS
    return (image.height, image.width) if is_turned else image.size


def _eight_bits(values: np.ndarray) -> Image.Image:
    """Return a grey picture of values ``(height, width)`` from 0 to 1."""
    return Image.fromarray(np.rint(255.0 * values).astype(np.uint8))
