"""Data sets from folders of images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_files import folder_source, pixels, write_folder
from PIL import Image

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    DataConfig,
    DataSource,
    MemoryImages,
    create_source,
)
from rlkd_env.data.sources import image_folder as image_folder_module
from rlkd_env.errors import UsageError


def read_everything(source: DataSource) -> None:
    splits = source.splits()
    for part in (splits.teacher_train, splits.probe, splits.validation):
        list(part.chunks(8))


def test_tiny_imagenet_reads_the_labels_of_its_validation_images(tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet-200"
    for name in ("n01", "n02"):
        write_folder(root / "train", {f"{name}/images": 10}, size=64)
    write_folder(root / "val", {"images": 4}, size=64)
    (root / "val" / "val_annotations.txt").write_text(
        "".join(f"{index:02d}.png\tn0{index % 2 + 1}\t0\t0\t9\t9\n" for index in range(4))
    )
    source = create_source(DataConfig(dataset="tiny_imagenet", data_path=str(tmp_path)))
    assert source.splits().image_shape == (3, 64, 64)
    assert source.test_set().labels.tolist() == [0, 1, 0, 1]


def test_a_folder_is_read_into_memory(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 20, "dog": 20})
    write_folder(tmp_path / "test", {"cat": 3, "dog": 3})
    source = folder_source(tmp_path)
    splits = source.splits()
    assert isinstance(splits.train, MemoryImages)
    assert splits.num_classes == 2
    assert splits.image_shape == (3, 16, 16)
    assert source.test_set().labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("streams", [False, True])
def test_damaged_images_are_named_and_refused_or_skipped(
    streams: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path, {"cat": 20, "dog": 20})
    damaged = tmp_path / "cat" / "07.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    options = {"augmentation": "resized_crop" if streams else "none"}
    with pytest.raises(UsageError, match=r"cat/07\.png cannot be read"):
        read_everything(folder_source(tmp_path, **options))
    splits = folder_source(tmp_path, **options, damaged_images="skip").splits()
    assert "skipped" in capsys.readouterr().err
    assert sum(len(part) for part in (splits.teacher_train, splits.probe, splits.validation)) == 39
    labels = torch.cat([splits.teacher_train.labels, splits.probe.labels, splits.validation.labels])
    assert labels.bincount().tolist() == [19, 20]


def test_grey_files_become_rgb_and_it_is_said(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 20, "dog": 20})
    Image.fromarray(pixels(1, 20, 1)[0, ..., 0]).save(tmp_path / "cat" / "00.png")
    with pytest.warns(UserWarning, match="converted to RGB"):
        assert folder_source(tmp_path).splits().image_shape == (3, 16, 16)


def test_impossible_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        folder_source(tmp_path / "missing").splits()
    for name in ("cat", "dog"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    with pytest.raises(UsageError, match="one folder per class"):
        folder_source(tmp_path / "empty").splits()
    root = write_folder(tmp_path / "parts" / "train", {"cat": 12, "dog": 12}).parent
    write_folder(root / "test", {"cat": 2, "emu": 2})
    with pytest.raises(UsageError, match="cat, emu, the training images cat, dog"):
        folder_source(root).test_set()
    monkeypatch.setattr(image_folder_module, "MEMORY_LIMIT", 0)
    with pytest.raises(UsageError, match="do not fit into memory"):
        folder_source(root, augmentation="crop_flip").splits()


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
@pytest.mark.parametrize("has_test", [False, True])
def test_a_folder_of_validation_images_is_used_for_validation(name: str, has_test: bool, tmp_path: Path) -> None:
    write_folder(tmp_path / "Train", {"cat": 20, "dog": 20})
    write_folder(tmp_path / name, {"cat": 3, "dog": 4})
    if has_test:
        write_folder(tmp_path / "Test", {"cat": 5, "dog": 1})
    source = folder_source(tmp_path)
    assert source.splits().validation.labels.tolist() == [0] * 3 + [1] * 4
    assert len(source.splits().teacher_train) == 36  # all but those for rewards
    test = source.test_set()
    assert test.labels.tolist() == [0] * 5 + [1] if has_test else test is None
