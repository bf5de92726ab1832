"""Scenes composed of several handwritten digits of random size and place among clutter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MIN_SIZE = 32
"""The smallest height and width of a scene; in smaller ones digits could not be recognised."""

_MOST_DIGITS = 6
_HEIGHTS = (0.17, 0.45)
"""The smallest and largest height of a digit, as a share of the scene's."""
_ASPECTS = (0.6, 1.1)
"""The smallest and largest width of a digit, as a share of its height."""
_LARGEST_OVERLAP = 0.25
"""The share of the smaller of two digits' boxes that the other may cover."""
_CONTRASTS = (0.25, 0.65)
"""The smallest and largest brightness of ink above the background, whose range is 1."""
_INK = 0.25
"""The share of full ink from which a pixel belongs to a digit."""
_TRIES = 20
_MOST_CLUTTER = 5


@dataclass(frozen=True)
class Scene:
    """Pixels ``(size, size)`` as uint8, corners ``(m, 4)`` of each digit's ink, and the m digits ``(m,)`` from 0."""

    pixels: np.ndarray
    corners: np.ndarray
    digits: np.ndarray


def compose(images: np.ndarray, digits: np.ndarray, size: int, generator: np.random.Generator) -> Scene:
    """Compose one scene of a height and width of ``size``; about one in thirty has no digit.

    The digits ``(n,)`` are written in images ``(n, 8, 8)`` with ink in [0, 1]; everything random comes from the
    generator.
    """
    ink = np.zeros((size, size))
    corners: list[np.ndarray] = []
    chosen: list[int] = []
    wanted = 0 if generator.random() < 1 / 30 else int(generator.integers(1, _MOST_DIGITS + 1))
    for position in generator.integers(len(images), size=wanted):
        glyph = _drawn(images[position], _random_shape(generator, size))
        place = _free_place(glyph, corners, size, generator)
        if place is not None:
            corners.append(place)
            chosen.append(int(digits[position]))
            _lay(ink, glyph * generator.uniform(*_CONTRASTS), place)
    for _ in range(generator.integers(_MOST_CLUTTER + 1)):
        if generator.random() < 0.5:
            _lay_fragment(ink, images[generator.integers(len(images))], corners, generator)
        else:
            np.maximum(ink, _stroke(size, generator) * generator.uniform(*_CONTRASTS), out=ink)
    values = _background(size, generator) + ink
    values += generator.normal(scale=generator.uniform(0.02, 0.07), size=values.shape)
    pixels = np.round(values.clip(0.0, 1.0) * 255.0).astype(np.uint8)
    return Scene(pixels, np.array(corners, dtype=np.float32).reshape(-1, 4), np.array(chosen, dtype=np.int64))


def _random_shape(generator: np.random.Generator, size: int) -> tuple[int, int]:
    """Return a random height and width in pixels; the height is uniform on a log scale."""
    height = size * np.exp(generator.uniform(*np.log(_HEIGHTS)))
    return max(round(height), 6), max(round(height * generator.uniform(*_ASPECTS)), 6)


def _drawn(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Draw an image in another height and width, clear pixels with too little ink, and crop to those that are left."""
    drawn = _interpolation(image.shape[0], shape[0]) @ image @ _interpolation(image.shape[1], shape[1]).T
    drawn[drawn < _INK] = 0.0
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    if not len(rows):
        return drawn[:0, :0]
    return drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@lru_cache(maxsize=256)
def _interpolation(count: int, wanted: int) -> np.ndarray:
    """Return the shares ``(wanted, count)`` of old pixels in new ones, whose centres are spread evenly."""
    middles = ((np.arange(wanted) + 0.5) * count / wanted - 0.5).clip(0, count - 1)
    return np.maximum(1.0 - np.abs(middles[:, None] - np.arange(count)), 0.0)


def _free_place(
    glyph: np.ndarray, taken: list[np.ndarray], size: int, generator: np.random.Generator
) -> np.ndarray | None:
    """Return corners for a glyph that overlaps existing boxes only a little, or None if no such place was found."""
    height, width = glyph.shape
    others = np.stack(taken) if taken else np.zeros((0, 4), dtype=np.int64)
    for _ in range(_TRIES):
        left, top = generator.integers(size - width + 1), generator.integers(size - height + 1)
        corners = np.array([left, top, left + width, top + height])
        if (_overlap(corners, others) <= _LARGEST_OVERLAP).all():
            return corners
    return None


def _overlap(corners: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersections ``(m,)`` of a box ``(4,)`` with others ``(m, 4)``, as shares of the smaller box."""
    sides = np.minimum(corners[2:], others[:, 2:]) - np.maximum(corners[:2], others[:, :2])
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return sides.clip(min=0).prod(axis=1) / np.minimum(areas, (corners[2:] - corners[:2]).prod())


def _lay(ink: np.ndarray, glyph: np.ndarray, corners: np.ndarray) -> None:
    """Put a glyph into a scene; where both have ink, the stronger one is visible."""
    left, top, right, bottom = corners
    np.maximum(ink[top:bottom, left:right], glyph, out=ink[top:bottom, left:right])


def _lay_fragment(ink: np.ndarray, image: np.ndarray, taken: list[np.ndarray], generator: np.random.Generator) -> None:
    """Put about a quarter of a digit at a place where it hides no digit."""
    row, column = generator.integers(5, size=2)
    piece = image[row : row + 4, column : column + 4]
    height, width = _random_shape(generator, len(ink))
    glyph = _drawn(piece, (max(height // 2, 4), max(width // 2, 4)))
    place = _free_place(glyph, taken, len(ink), generator) if glyph.size else None
    if place is not None:
        _lay(ink, glyph * generator.uniform(*_CONTRASTS), place)


def _stroke(size: int, generator: np.random.Generator) -> np.ndarray:
    """Return the ink ``(size, size)`` in [0, 1] of a straight stroke with soft edges."""
    start = generator.uniform(0, size, size=2)
    angle, length = generator.uniform(0, np.pi), generator.uniform(0.1, 0.35) * size
    direction = np.array([np.cos(angle), np.sin(angle)])
    down, right = _grid(size) - start[:, None, None]
    along = (down * direction[0] + right * direction[1]).clip(0, length)
    distance = np.hypot(down - along * direction[0], right - along * direction[1])
    thickness = generator.uniform(0.01, 0.03) * size
    return (0.5 + thickness / 2 - distance).clip(0.0, 1.0)


def _background(size: int, generator: np.random.Generator) -> np.ndarray:
    """Return a grey gradient ``(size, size)``."""
    down, right = _grid(size) / size - 0.5
    slope_down, slope_right = generator.uniform(-0.15, 0.15, size=2)
    return generator.uniform(0.1, 0.3) + slope_down * down + slope_right * right


@lru_cache(maxsize=4)
def _grid(size: int) -> np.ndarray:
    """Return the positions ``(2, size, size)`` of all pixels, down and right."""
    return np.mgrid[:size, :size]
