"""Pascal VOC."""

from __future__ import annotations

from pathlib import Path

import pytest
from coco_files import BOX, HEIGHT, WIDTH, source_of, write_image

from rlkd_env.data import (
    DataSource,
)
from rlkd_env.errors import UsageError


def voc_object(name: str, difficult: str | None = "0", box: tuple[float, ...] = (11, 5, 16, 12)) -> str:
    sides = "".join(f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box))  # noqa: B905
    mark = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return f"<object><name>{name}</name>{mark}<bndbox>{sides}</bndbox></object>"


def write_voc(root: Path, year: str, lists: dict[str, int], objects: str = voc_object("dog")) -> Path:
    folder = root / "VOCdevkit" / f"VOC{year}"
    for name in ("ImageSets/Main", "Annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, count in lists.items():
        images = [f"{year}_{name}_{number:03d}" for number in range(count)]
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{image}\n" for image in images))
        for image in images:
            write_image(folder / "JPEGImages" / f"{image}.jpg")
            (folder / "Annotations" / f"{image}.xml").write_text(
                f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
                f"{objects}</annotation>"
            )
    return root


def voc_source(root: Path, **options: object) -> DataSource:
    return source_of(root, dataset="voc", **options)


def test_voc_trains_on_both_years_and_tests_on_2007(tmp_path: Path) -> None:
    write_voc(tmp_path, "2007", {"trainval": 12, "test": 5, "train": 3, "val": 3})
    write_voc(tmp_path, "2012", {"trainval": 18, "train": 3, "val": 3, "test": 2})
    source = voc_source(tmp_path)
    images, num_classes = source.training_images()
    assert (len(images), num_classes, len(source.class_names), len(source.test_set())) == (30, 20, 20, 5)
    assert len(source.splits().validation) == 3
    assert source.class_names[int(images.labels[0]) - 1] == "dog"


def test_voc_without_the_list_for_the_test_uses_val(tmp_path: Path) -> None:
    source = voc_source(write_voc(tmp_path, "2012", {"trainval": 20, "train": 14, "val": 6}))
    assert len(source.training_images()[0]) == 14
    assert len(source.test_set()) == 6


def test_voc_pixels_count_from_1_and_include_the_last(tmp_path: Path) -> None:
    source = voc_source(write_voc(tmp_path, "2007", {"trainval": 10, "test": 2}))
    found = source.test_set().ground_truth()["annotations"][0]
    assert (found["bbox"], found["area"], found["category_id"]) == (BOX, 48.0, 12)


def test_difficult_objects_of_voc_are_ignored_as_crowds_are(tmp_path: Path) -> None:
    objects = voc_object("cat", "1") + voc_object("person", None, (1, 1, 5, 5)) + voc_object("bird", "0", (6, 6, 8, 8))
    images = voc_source(write_voc(tmp_path, "2007", {"trainval": 10, "test": 2}, objects)).training_images()[0]
    assert [row["iscrowd"] for row in images.ground_truth()["annotations"][:3]] == [1, 0, 0]
    assert images.boxes.trainable()[0][1].tolist() == [15, 3]
    assert images.labels[0] == 15


def test_images_of_voc_may_have_no_object(tmp_path: Path) -> None:
    write_voc(tmp_path, "2007", {"trainval": 10})
    source = voc_source(write_voc(tmp_path, "2007", {"test": 3}, objects=""))
    assert source.test_set().labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ("<annotation><size>", "is not an annotation in Pascal VOC's format"),
        ("<annotation><folder>VOC</folder></annotation>", "it lacks 'size'"),
        (
            "<annotation><size><width>0</width><height>20</height></size></annotation>",
            "cannot be 0 by 20 pixels",
        ),
        (
            f"<annotation><size><width>40</width><height>20</height></size>{voc_object('emu')}</annotation>",
            "'emu' is not one of its classes",
        ),
        (
            "<annotation><size><width>40</width><height>20</height></size><object><name>dog</name></object></annotation>",
            "it lacks 'bndbox'",
        ),
    ],
)
def test_damaged_annotations_of_voc_are_refused(annotation: str, message: str, tmp_path: Path) -> None:
    write_voc(tmp_path, "2007", {"trainval": 10, "test": 2})
    (tmp_path / "VOCdevkit" / "VOC2007" / "Annotations" / "2007_trainval_003.xml").write_text(annotation)
    with pytest.raises(UsageError, match=message) as error:
        voc_source(tmp_path).splits()
    assert "2007_trainval_003." in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_of_voc_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Pascal VOC is not in .*; pass --download"):
        voc_source(tmp_path).splits()
    write_voc(tmp_path, "2007", {"trainval": 10, "test": 2})
    (tmp_path / "VOCdevkit" / "VOC2007" / "Annotations" / "2007_trainval_003.xml").unlink()
    with pytest.raises(UsageError, match=r"2007_trainval_003\.xml"):
        voc_source(tmp_path).splits()
