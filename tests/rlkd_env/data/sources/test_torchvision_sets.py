"""Data sets of torchvision, or arrays of their name."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_files import pixels, write_npz

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    DataConfig,
    Preprocessing,
    create_source,
)
from rlkd_env.errors import UsageError


def test_small_sets_are_read_from_arrays_of_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_npz(tmp_path / "cifar100.npz", x_train=pixels(100, 32), x_test=pixels(20, 32, seed=1))
    monkeypatch.setenv("RLKD_DATA", str(tmp_path))
    source = create_source(DataConfig(dataset="cifar100"))
    splits = source.splits()
    assert splits.train.preprocessing == Preprocessing((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), 4, True)
    assert len(source.test_set()) == 20


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist", "tiny_imagenet", "imagenet"])
def test_a_missing_data_set_says_where_it_was_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=str(tmp_path)) as error:
        create_source(DataConfig(dataset=name, data_path=str(tmp_path))).splits()
    assert name == "imagenet" or "--download" in str(error.value)
    assert "\n" not in str(error.value)
