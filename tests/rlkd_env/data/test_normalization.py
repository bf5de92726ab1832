"""Constants by name and as numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_files import arrays_source, folder_source, pixels, write_folder, write_npz

from rlkd_env.data import DataConfig, Preprocessing, create_source
from rlkd_env.data.normalization import NORMALIZATIONS, for_channels, read_normalization
from rlkd_env.errors import UsageError


@pytest.mark.parametrize(
    ("words", "constants"),
    [
        (("auto",), None),
        (("inception",), ((0.5,), (0.5,))),
        (("0.1", "0.2"), ((0.1,), (0.2,))),
        (("0.1", "0.2", "0.3", "1", "2", "3"), ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))),
    ],
)
def test_words_are_read(words: tuple[str, ...], constants: object) -> None:
    assert read_normalization(words) == constants


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("imagnet",), "Did you mean 'imagenet'?"),
        (("0.5",), "unknown normalization '0.5'"),
        ((), "one number each"),
        (("0.5", "0"), "one number each"),
        (("0.5", "nan"), "one number each"),
        (("0.5", "0.5", "0.5"), "one number each"),
        (("0.5", "half"), "one number each"),
    ],
)
def test_other_words_are_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DataConfig(normalization=words)


def test_one_number_is_for_all_channels_and_three_for_three() -> None:
    assert for_channels(((0.5,), (0.25,)), 3) == ((0.5,) * 3, (0.25,) * 3)
    assert for_channels(NORMALIZATIONS["imagenet"], 3) == NORMALIZATIONS["imagenet"]
    with pytest.raises(UsageError, match="has 3 channels, but the images have 1"):
        for_channels(NORMALIZATIONS["imagenet"], 1)


def test_every_kind_of_data_is_normalised_by_them(tmp_path: Path) -> None:
    asked = {"normalization": ("0.25", "0.5")}
    write_folder(tmp_path / "folder", {"cat": 12, "dog": 12})
    sources = [
        arrays_source(write_npz(tmp_path / "a.npz"), **asked),
        folder_source(tmp_path / "folder", **asked),
        create_source(DataConfig(**asked)),
    ]
    plain = [
        arrays_source(tmp_path / "a.npz", normalization="none"),
        folder_source(tmp_path / "folder", normalization=["none"]),
        create_source(DataConfig()),
    ]
    for one, other in zip(sources, plain, strict=True):
        found, expected = (source.splits().train.images for source in (one, other))
        assert 0 <= expected.min() < expected.max() <= 1
        torch.testing.assert_close(found, (expected - 0.25) / 0.5)
    assert torch.allclose(plain[0].splits().train.images * 255, plain[0].splits().train.pixels.float())


def test_detectors_have_the_usual_constants(tmp_path: Path) -> None:
    for dataset in ("digits_detection", "coco", "voc"):
        with pytest.raises(UsageError, match="leave --normalization out"):
            create_source(DataConfig(dataset=dataset, data_path=str(tmp_path), normalization=("imagenet",)))


def test_those_of_cifar_are_its_own() -> None:
    images = torch.from_numpy(pixels(2, 4)).permute(0, 3, 1, 2) / 255
    normalised = Preprocessing(*NORMALIZATIONS["cifar10"]).normalize(images)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in NORMALIZATIONS["cifar10"])
    torch.testing.assert_close(normalised, (images - mean) / std)
