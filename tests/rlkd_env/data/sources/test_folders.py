"""Folders of every layout: what is a class, what is a part, and what is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from image_files import folder_source, write_folder

from rlkd_env.data.sources.folders import find_parts, list_classes
from rlkd_env.errors import UsageError


def test_names_with_a_dot_are_no_classes_and_no_images(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 3, "dog": 2, ".ipynb_checkpoints": 4, "dog/.thumbnails": 1})
    shutil.copy(tmp_path / "cat" / "00.png", tmp_path / "cat" / "._00.png")
    (tmp_path / "dog" / ".DS_Store").write_bytes(b"")
    samples, classes = list_classes(tmp_path)
    assert classes == ["cat", "dog"]
    assert [label for _, label in samples] == [0, 0, 0, 1, 1]
    assert not [path for path, _ in samples if "/." in str(path)]


def test_what_is_found_and_what_is_left_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path, {"cat": 3, "dog": 2})
    shutil.copy(tmp_path / "cat" / "00.png", tmp_path / "cat" / "photo.JFIF")
    for name in ("notes.txt", "more.txt", "photo.heic"):
        (tmp_path / "dog" / name).write_bytes(b"")
    list_classes(tmp_path)
    told = capsys.readouterr().err
    assert f"{tmp_path}: 6 images of 2 classes: cat 4, dog 2\n" in told
    assert "3 files are left out, as their names are those of no image: 2 .txt, 1 .heic\n" in told


def test_of_many_classes_the_rarest_and_the_commonest_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path, {f"c{number:02d}": 1 + number % 3 for number in range(13)}, size=4)
    list_classes(tmp_path)
    assert "13 classes: c00, c01, … c12, 1 to 3 of each\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (["train", "test"], {"train": "train", "test": "test"}),
        (["Train", "Test"], {"train": "Train", "test": "Test"}),
        (["TRAINING", "Valid", "testing"], {"train": "TRAINING", "validation": "Valid", "test": "testing"}),
        (["train", "val", ".git"], {"train": "train", "validation": "val"}),
        (["cat", "dog"], {}),
    ],
)
def test_parts_are_found_by_their_names(made: list[str], found: dict[str, str], tmp_path: Path) -> None:
    for name in made:
        (tmp_path / name).mkdir()
    assert find_parts(tmp_path) == {part: tmp_path / name for part, name in found.items()}


def test_two_folders_for_one_part_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "validation"):
        (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="holds val and validation, which are one part of the data"):
        find_parts(tmp_path)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"dataset": 3}, "holds a single class, dataset: there is nothing to tell apart$"),
        ({"dataset/cat": 3, "dataset/dog": 3}, r"if the classes are in there, pass .*dataset as --data-path"),
        ({"cat": 3, "Test": 3}, "the folder Test in .* is a part of the data by its name, not a class"),
        ({"val": 3, "test": 3}, "the folder test in .* is a part of the data"),
        ({}, "it holds no folder"),
    ],
)
def test_what_is_no_choice_of_classes_is_refused(classes: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message) as error:
        list_classes(write_folder(tmp_path, classes))
    assert "\n" not in str(error.value)


def test_a_class_may_be_called_train_where_the_parts_have_folders(tmp_path: Path) -> None:
    """As among the vehicles of Pascal VOC."""
    write_folder(tmp_path / "train", {"bus": 2, "train": 2})
    assert list_classes(tmp_path / "train", "train")[1] == ["bus", "train"]
    write_folder(tmp_path / "nested", {"train/cat": 2, "test/cat": 2})
    with pytest.raises(UsageError, match="is a part of the data"):
        list_classes(tmp_path / "nested", "train")


def test_parts_inside_of_classes_are_refused(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        write_folder(tmp_path / name, {"train": 2, "Test": 2})
    with pytest.raises(UsageError, match=r"cats holds Test and train, which are parts of the data"):
        list_classes(tmp_path)


def test_a_link_to_a_folder_that_is_there_already_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cats": 2, "dogs": 2})
    (tmp_path / "dogs" / "all").symlink_to(tmp_path)
    with pytest.raises(UsageError, match=r"dogs/all/cats is \S*cats once more, by a link"):
        list_classes(tmp_path)


def test_folders_beside_the_parts_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "dev"):
        write_folder(tmp_path / name, {"cats": 8, "dogs": 8})
    folder_source(tmp_path).splits()
    assert "left out, as their names are those of no part: dev\n" in capsys.readouterr().err
