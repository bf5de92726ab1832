"""Pictures of every mode and orientation look as a person sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlkd_env.data.decoding import as_seen, image_suffixes

ORIENTATION = 0x0112


def picture() -> Image.Image:
    """A grey ramp from left to right on top, white below, so that no turn or mirroring leaves it as it is."""
    values = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (16, 1))
    values[8:] = 255
    return Image.fromarray(values)


def reopened(image: Image.Image, path: Path, **options: object) -> Image.Image:
    image.save(path, **options)
    with Image.open(path) as file:
        return as_seen(file)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_sixteen_bits_are_scaled_to_eight(name: str, tmp_path: Path) -> None:
    deep = Image.fromarray(np.asarray(picture()).astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(reopened(deep, tmp_path / name)), np.asarray(picture()))


def test_floats_from_0_to_1_are_scaled_and_others_refused(tmp_path: Path) -> None:
    values = np.asarray(picture()).astype(np.float32) / 255
    found = reopened(Image.fromarray(values), tmp_path / "floats.tif")
    assert np.array_equal(np.asarray(found), np.asarray(picture()))
    for other in (2 * values, values - 0.1, np.full_like(values, np.nan)):
        with pytest.raises(ValueError, match="not all from 0 to 1"):
            reopened(Image.fromarray(other), tmp_path / "floats.tif")


def test_whole_numbers_of_unknown_scale_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no known scale"):
        reopened(Image.fromarray(np.asarray(picture()).astype(np.int32)), tmp_path / "long.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.tif", "turned.webp"])
def test_a_picture_is_turned_as_its_orientation_says(orientation: int, name: str, tmp_path: Path) -> None:
    stored_as = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],  # to be turned by a quarter to the right
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    stored = picture().convert("RGB")
    for turn in stored_as:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    found = reopened(stored, tmp_path / name, exif=exif, quality=95)
    assert found.size == picture().size
    difference = np.asarray(found.convert("L")).astype(int) - np.asarray(picture()).astype(int)
    assert np.abs(difference).mean() < 6  # of JPEG and WebP; a wrong turn is off by more than 50


@pytest.mark.parametrize(
    ("mode", "expected"), [("1", "L"), ("L", "L"), ("LA", "L"), ("P", "RGB"), ("RGBA", "RGB"), ("CMYK", "RGB")]
)
def test_grey_pictures_stay_grey_and_coloured_ones_become_rgb(mode: str, expected: str) -> None:
    found = as_seen(picture().convert(mode))
    assert found.mode == expected
    assert np.asarray(found)[12].min() == 255
    assert np.asarray(found)[0, 0].max() == 0


def test_the_usual_endings_are_those_of_images() -> None:
    assert {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".pgm", ".gif"} <= image_suffixes()
    assert not {".txt", ".json", ".pdf", ".eps", ".mpg", ".npz"} & image_suffixes()
