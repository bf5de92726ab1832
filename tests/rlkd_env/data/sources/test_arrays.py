"""Data sets from arrays of every layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import arrays_source, pixels, write_npz

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.errors import UsageError


@pytest.mark.parametrize("layout", ["channels last", "channels first", "grey", "floats"])
def test_arrays_of_every_layout_become_the_same_pixels(layout: str, tmp_path: Path) -> None:
    images = pixels(60, channels=1 if layout == "grey" else 3)
    written = {
        "channels last": images,
        "channels first": images.transpose(0, 3, 1, 2),
        "grey": images[..., 0],
        "floats": images / 255.0,
    }[layout]
    source = arrays_source(write_npz(tmp_path / "a.npz", x_train=written, y_train=np.arange(60) % 3, x_test=None))
    splits = source.splits()
    assert source.test_set() is None
    assert splits.num_classes == 3
    assert splits.image_shape == (images.shape[-1], 8, 8)
    everything = torch.cat([splits.teacher_train.images, splits.probe.images, splits.validation.images])
    # Normalised by the statistics of all training images: together they have mean 0 and deviation 1.
    torch.testing.assert_close(everything.mean(dim=(0, 2, 3)), torch.zeros(images.shape[-1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(everything.std(dim=(0, 2, 3)), torch.ones(images.shape[-1]), atol=1e-3, rtol=0)


def test_arrays_are_resized_on_request(tmp_path: Path) -> None:
    source = arrays_source(write_npz(tmp_path / "a.npz"), image_size=12)
    assert source.splits().image_shape == (3, 12, 12)
    assert source.test_set().image_shape == (3, 12, 12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, "lacks the array x_train"),
        ({"y_test": None}, "lacks the array y_test"),
        ({"x_train": np.zeros((100, 64), np.uint8)}, r"shape \(100, 64\)"),
        ({"x_train": np.zeros((100, 8, 8, 2), np.uint8)}, "1 or 3 channels"),
        ({"x_train": np.full((100, 8, 8), 3.0)}, "from 0 to 1"),
        ({"x_train": np.full((100, 8, 8), np.nan)}, "from 0 to 1"),
        ({"x_train": np.zeros((100, 8, 8), np.int64)}, "uint8"),
        ({"y_train": np.arange(99)}, "each of the 100 images"),
        ({"y_train": np.arange(100) / 2}, "whole number"),
        ({"y_train": np.arange(100) - 1}, "class -1"),
        ({"y_test": np.full(20, 4)}, "class 4, but the training images have 4 classes"),
        ({"x_test": pixels(20, 9)}, "test images .* have the shape"),
        ({"x_train": np.array([{"a": 1}] * 100)}, "not an .npz file of plain arrays"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        arrays_source(write_npz(tmp_path / "a.npz", **changes)).splits()


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file .*missing.npz: pass an .npz"):
        arrays_source(tmp_path / "missing.npz").splits()
    path = write_npz(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UsageError, match=r"not an .npz file"):
        arrays_source(path).splits()


@pytest.mark.parametrize("name", ["validation", "val"])
def test_validation_images_of_the_file_are_used(name: str, tmp_path: Path) -> None:
    own = {f"x_{name}": pixels(12, seed=5), f"y_{name}": np.arange(12) % 4}
    source = arrays_source(write_npz(tmp_path / "a.npz", **own))
    splits = source.splits()
    assert len(splits.validation) == 12
    assert len(splits.train) == 90, "all but the probe images"
    with pytest.raises(UsageError, match="lacks the array y_validation"):
        arrays_source(write_npz(tmp_path / "b.npz", **{f"x_{name}": own[f"x_{name}"]})).splits()


def test_arrays_of_other_names_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays_source(write_npz(tmp_path / "a.npz", extra=np.zeros(3))).splits()
    assert "a.npz: the arrays extra are left out" in capsys.readouterr().err
    np.savez(tmp_path / "b.npz", train_images=pixels(20), train_labels=np.arange(20))
    with pytest.raises(UsageError, match=r"lacks the array x_train; it holds train_images, train_labels"):
        arrays_source(tmp_path / "b.npz").splits()
