"""The user's own Datasets by their path."""

from __future__ import annotations

import sys

import pytest
import torch
from image_files import pixels
from torch import Tensor
from torch.utils.data import TensorDataset

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    DataConfig,
    create_source,
)
from rlkd_env.errors import UsageError


class LabelledTensors(TensorDataset):
    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__(images, labels)
        self.targets = labels


def make_dataset(train: bool) -> TensorDataset | None:
    images = torch.from_numpy(pixels(60).transpose(0, 3, 1, 2).copy())
    return LabelledTensors(images, torch.arange(60) % 3) if train else None


def make_unlabelled(train: bool) -> TensorDataset:
    return TensorDataset(torch.rand(30, 1, 8, 8), torch.arange(30) % 3)


def make_nothing() -> None:
    return None


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "users_data", sys.modules[__name__])
    return "users_data"


def test_a_dataset_is_found_by_its_path(importable: str) -> None:
    source = create_source(DataConfig(dataset=f"{importable}:make_dataset", workers=0))
    splits = source.splits()
    assert (splits.num_classes, splits.image_shape, source.test_set()) == (3, (3, 8, 8), None)
    assert splits.train.take(torch.arange(4)).max() <= 1.0
    plain = create_source(DataConfig(dataset=f"{importable}:make_unlabelled", workers=0)).splits()
    assert plain.train.labels.bincount().tolist() == [8, 8, 8]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no.such.module:make", "the module 'no.such.module' cannot be imported"),
        ("users_data:missing", "has no 'missing'"),
        ("users_data:make_nothing", "must take train=True"),
    ],
)
def test_paths_that_lead_nowhere_are_refused(path: str, message: str, importable: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_source(DataConfig(dataset=path)).splits()
