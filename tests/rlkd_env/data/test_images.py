"""Images in memory and their random views."""

from __future__ import annotations

from pathlib import Path

import torch
from image_files import arrays_source, pixels, write_npz

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    Preprocessing,
)


def test_crops_are_windows_of_the_padded_image_and_flips_their_mirror_images() -> None:
    images = torch.from_numpy(pixels(64).transpose(0, 3, 1, 2).copy())
    preprocessing = Preprocessing(crop_padding=2, flip=True)
    views = preprocessing.augment(images, preprocessing.draw(64, seed=3))
    padded = torch.nn.functional.pad(images, [2] * 4)
    seen = set()
    for image, view in zip(padded, views, strict=True):
        windows = {
            (row, column, flipped): window.flip(-1) if flipped else window
            for row in range(5)
            for column in range(5)
            for flipped in (False, True)
            for window in [image[:, row : row + 8, column : column + 8]]
        }
        (found,) = [place for place, window in windows.items() if torch.equal(window, view)]
        seen.add(found)
    assert {place[2] for place in seen} == {False, True}
    assert {place[0] for place in seen} == {place[1] for place in seen} == set(range(5))
    assert torch.equal(preprocessing.draw(64, seed=3), preprocessing.draw(64, seed=3))
    assert not torch.equal(preprocessing.draw(64, seed=3), preprocessing.draw(64, seed=4))


def test_only_training_images_are_augmented(tmp_path: Path) -> None:
    splits = arrays_source(write_npz(tmp_path / "a.npz"), augmentation="crop_flip").splits()
    positions = torch.arange(10)
    assert torch.equal(splits.train.take(positions), splits.train.images[:10])
    assert not torch.equal(splits.train.take(positions, view=0), splits.train.images[:10])
    assert torch.equal(torch.cat(list(splits.train.chunks(16))), splits.train.images)
