"""The user's own Datasets by their path."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from image_files import pixels
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    DataConfig,
    DataSource,
    create_source,
)
from rlkd_env.data.sources import UserDataset
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


class Noisy(Dataset):
    """Images to which a transform adds random numbers of one of the global generators."""

    draws: ClassVar = {
        "torch": lambda: torch.rand(3, 8, 8),
        "numpy": lambda: torch.from_numpy(np.random.rand(3, 8, 8)),  # noqa: NPY002 (as older transforms do)
        "python": lambda: torch.full((3, 8, 8), random.random()),
        "none": lambda: torch.zeros(3, 8, 8),
        "own": lambda: torch.from_numpy(np.random.default_rng().random((3, 8, 8))),
    }

    def __init__(self, generator: str, count: int = 60) -> None:
        self.generator, self.targets = generator, [index % 3 for index in range(count)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return (index / 60 + 0.1 * self.draws[self.generator]()).float(), self.targets[index]


def source_of(factory: Callable[..., Any], **options: Any) -> DataSource:
    return UserDataset.of(factory)(DataConfig(dataset="mine:factory", workers=0, **options))


def parts_of(source: DataSource) -> dict[str, Tensor]:
    splits = source.splits()
    return {name: getattr(splits, name).images for name in ("train", "probe", "validation")}


@pytest.mark.parametrize("generator", ["torch", "numpy", "python"])
def test_random_transforms_make_the_same_plain_images_at_every_look(
    generator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [source_of(lambda train: Noisy(generator) if train else None) for _ in range(2)]
    first = parts_of(sources[0])
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    state = random.getstate()
    second = parts_of(sources[1])
    assert random.getstate() == state  # the caller's generators are left alone
    assert all(torch.equal(first[name], second[name]) for name in first)
    train = sources[0].splits().train
    views = [train.take(torch.arange(4), view) for view in (0, 0, 1)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    assert "are random, so that each is looked at in one random view" in capsys.readouterr().err


def test_transforms_that_no_seed_reaches_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    source_of(lambda train: Noisy("own") if train else None).splits()
    assert "generator of their own, which follows no seed" in capsys.readouterr().err


@pytest.mark.parametrize("has_split", [False, True])
def test_a_factory_may_give_plain_images_and_parts(has_split: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def by_train(train: bool, augment: bool) -> Dataset:
        return Noisy("torch" if augment else "none", 60 if train else 9)

    def by_split(split: str, augment: bool) -> Dataset:
        return Noisy("torch" if augment else "none", {"train": 60, "validation": 12, "test": 9}[split])

    source = source_of(by_split if has_split else by_train)
    splits = source.splits()
    expected = torch.arange(60) / 60
    assert torch.isin(splits.probe.images[:, 0, 0, 0], expected).all()
    assert not torch.isin(splits.train.take(torch.arange(4), 0)[:, 0, 0, 0], expected).any()
    assert len(splits.validation) == (12 if has_split else 6)
    assert torch.equal(source.test_set().images[:, 0, 0, 0], expected[:9])
    assert not capsys.readouterr().err


def test_labels_are_those_of_the_items(capsys: pytest.CaptureFixture[str]) -> None:
    class Shifted(Noisy):
        """Its labels count from 1, as those of a transform of the targets do."""

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return super().__getitem__(index)[0], self.targets[index] + 1

    splits = source_of(lambda train: Shifted("none") if train else None).splits()
    assert splits.num_classes == 4
    assert "and labels that count from 1 make one class too many" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((torch.zeros(3, 8, 8, dtype=torch.int32), 0), "pixels of torch.int32, whose scale is not known"),
        ((torch.zeros(8), 0), "is not an image"),
        ((Image.new("I", (8, 8)), 0), "no known scale"),
        ((torch.zeros(3, 8, 8), torch.zeros(3)), "one whole number for each"),
        ((torch.zeros(3, 8, 8), 0), "all of one class"),
        ((torch.zeros(8, 9, 3), 0), "have their channels first"),
        ((torch.full((3, 8, 8), torch.nan), 0), "no finite numbers"),
        (None, "item 0 of the Dataset is a NoneType, not a pair"),
        ({"picture": 0, "label": 1}, "has the entries picture, label: an image is looked for under image, img"),
    ],
)
def test_items_that_are_no_labelled_images_are_refused(item: tuple[Any, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        source_of(lambda train: [item] * 30 if train else None).splits()


def test_pictures_become_tensors_of_8_bits() -> None:
    deep = Image.fromarray(np.full((8, 8), 65535, np.uint16))
    items = [(deep, index % 2) for index in range(30)]
    images = source_of(lambda train: items if train else None).splits().train.images
    assert images.shape[1:] == (1, 8, 8)
    assert (images == 1.0).all()


BYTES = np.random.default_rng(0).integers(0, 256, (30, 8, 9, 3), dtype=np.uint8)
FORMS = {
    "PIL": lambda i: (Image.fromarray(BYTES[i]), i % 2),
    "HuggingFace's": lambda i: {"img": Image.fromarray(BYTES[i]), "fine_label": i % 2, "coarse_label": 0},
    "tensors by name": lambda i: {"pixel_values": torch.from_numpy(BYTES[i]).permute(2, 0, 1), "labels": i % 2},
    "arrays, channels last": lambda i: (BYTES[i], np.int64(i % 2)),
    "arrays, channels first": lambda i: (BYTES[i].transpose(2, 0, 1), i % 2),
    "floats": lambda i: (BYTES[i].transpose(2, 0, 1) / 255.0, torch.tensor([i % 2])),
    "and more": lambda i: [torch.from_numpy(BYTES[i]).permute(2, 0, 1), i % 2, "a caption"],
    "RGBA": lambda i: (Image.fromarray(BYTES[i]).convert("RGBA"), i % 2),
}


@pytest.mark.parametrize("form", FORMS)
def test_items_of_every_form_are_the_same_images(form: str) -> None:
    items = [FORMS[form](position) for position in range(30)]
    train = source_of(lambda train: items if train else None).splits().train
    expected = torch.from_numpy(BYTES).permute(0, 3, 1, 2)[train.positions] / 255
    torch.testing.assert_close(train.images, expected)
    assert torch.equal(train.labels, train.positions % 2)


def test_grey_pictures_among_colour_ones_become_colour() -> None:
    grey = [Image.fromarray(BYTES[i] if i % 3 == 0 else BYTES[i, ..., 0]) for i in range(30)]
    train = source_of(lambda train: list(zip(grey, [0, 1] * 15, strict=True)) if train else None).splits().train
    assert train.images.shape[1:] == (3, 8, 9)


def test_images_of_several_shapes_are_told() -> None:
    items = [(torch.zeros(3, 8, 8 + (i == 9)), i % 2) for i in range(30)]
    source = source_of(lambda train: items if train else None)
    with pytest.raises(UsageError, match=r"item 9 of the Dataset has the shape \(3, 8, 9\), but the first \(3, 8, 8\)"):
        source.training_images()[0].take(torch.arange(30))


def test_bytes_as_floats_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    items = [(torch.from_numpy(BYTES[i]).permute(2, 0, 1).float(), i % 2) for i in range(30)]
    source_of(lambda train: items if train else None).splits()
    assert "have floating-point pixels beyond 1, which networks get as they are: divide them by 255" in (
        capsys.readouterr().err
    )
