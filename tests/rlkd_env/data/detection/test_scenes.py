"""How scenes of digits are composed."""

from __future__ import annotations

import numpy as np
import pytest

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data.detection import scenes as scenes_module
from rlkd_env.data.sources.digits import load_digit_images


class Quiet(np.random.Generator):
    """Draws no noise."""

    def normal(self, scale: float, size: tuple[int, ...]) -> np.ndarray:
        return np.zeros(size)


def bare_scenes(count: int, monkeypatch: pytest.MonkeyPatch) -> list[scenes_module.Scene]:
    """Scenes of digits alone, on black."""
    monkeypatch.setattr(scenes_module, "_MOST_CLUTTER", 0)
    monkeypatch.setattr(scenes_module, "_background", lambda size, generator: np.zeros((size, size)))
    images, digits = load_digit_images()
    return [
        scenes_module.compose(images[:, 0], digits, 64, Quiet(np.random.PCG64([7, number]))) for number in range(count)
    ]


def test_boxes_are_tight_around_the_ink(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = 0
    for scene in bare_scenes(60, monkeypatch):
        covered = np.zeros((64, 64), dtype=bool)
        for left, top, right, bottom in scene.corners.astype(int):
            part = scene.pixels[top:bottom, left:right] > 0
            assert all(border.any() for border in (part[0], part[-1], part[:, 0], part[:, -1]))
            covered[top:bottom, left:right] = True
        assert not scene.pixels[~covered].any()
        if len(scene.digits) == 1:
            alone += 1
            rows, columns = scene.pixels.nonzero()
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert scene.corners[0].tolist() == expected
    assert alone >= 3


def test_digits_overlap_by_a_quarter_of_the_smaller_box_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0.0
    for scene in bare_scenes(60, monkeypatch):
        for number, (left, top, right, bottom) in enumerate(scene.corners):
            for other_left, other_top, other_right, other_bottom in scene.corners[:number]:
                width = max(min(right, other_right) - max(left, other_left), 0.0)
                height = max(min(bottom, other_bottom) - max(top, other_top), 0.0)
                areas = (right - left) * (bottom - top), (other_right - other_left) * (other_bottom - other_top)
                largest = max(largest, width * height / min(areas))
    assert 0.1 < largest <= 0.25


def test_every_digit_can_be_drawn_in_the_smallest_size() -> None:
    for image in load_digit_images()[0][:, 0]:
        assert min(scenes_module._drawn(image, (6, 6)).shape) >= 1


def test_clutter_changes_pixels_and_no_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    images, digits = load_digit_images()

    def scenes() -> list[scenes_module.Scene]:
        return [
            scenes_module.compose(images[:, 0], digits, 64, Quiet(np.random.PCG64([1, number]))) for number in range(8)
        ]

    cluttered = scenes()
    monkeypatch.setattr(scenes_module, "_lay_fragment", lambda *arguments: None)
    monkeypatch.setattr(scenes_module, "_stroke", lambda size, generator: np.zeros((size, size)))
    plain = scenes()
    assert all(np.array_equal(one.corners, other.corners) for one, other in zip(cluttered, plain, strict=True))
    assert sum(np.array_equal(one.pixels, other.pixels) for one, other in zip(cluttered, plain, strict=True)) < 4
