"""COCO's format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from coco_files import (
    BOX,
    CATEGORIES,
    HEIGHT,
    WIDTH,
    coco,
    edited,
    source_of,
    training_set,
    write,
    write_parts,
)

from rlkd_env.errors import UsageError


def test_where_there_is_a_test_file_the_val_file_is_for_validation(tmp_path: Path) -> None:
    source = source_of(write_parts(tmp_path, train=30, val=6, test=5))
    splits = source.splits()
    assert [len(part) for part in (splits.teacher_train, splits.probe, splits.validation)] == [28, 2, 6]
    assert len(source.test_set()) == 5
    assert len(source_of(tmp_path, validation_images=4).splits().validation) == 4
    with pytest.raises(UsageError, match="validation part cannot have 7 images: 6 are there"):
        source_of(tmp_path, validation_images=7).splits()


def test_without_a_test_file_the_val_file_is_for_the_test(tmp_path: Path) -> None:
    for part, count in (("train", 30), ("val", 6)):
        write(coco(count), tmp_path / "annotations" / f"instances_{part}2017.json", tmp_path / f"{part}2017")
    (tmp_path / "annotations" / "image_info_test-dev2017.json").write_text("{}")
    source = source_of(tmp_path)
    splits = source.splits()
    assert [len(part) for part in (splits.teacher_train, splits.probe, splits.validation)] == [25, 2, 3]
    assert len(source.test_set()) == 6


def test_without_both_there_is_no_test_set(tmp_path: Path) -> None:
    source = source_of(write_parts(tmp_path, train=20))
    assert source.test_set() is None
    assert len(source.splits().validation) == 2


def test_classes_are_in_the_order_of_their_numbers_which_may_have_gaps(tmp_path: Path) -> None:
    source = source_of(write_parts(tmp_path, train=20))
    images, num_classes = source.training_images()
    assert (source.task, source.class_names, num_classes) == ("detection", ("cat", "dog"), 2)
    assert images.labels.tolist() == [2, 1] * 10
    assert source.splits().train.labels.bincount().tolist() == [0, 8, 8]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([3, 5, 1, 1], [3, 5, 1, 1]),
        ([0.5, 0.25, 0.5, 0.5], [0.5, 0.25, 0.5, 0.5]),
        ([-4, -2, 10, 6], [0, 0, 6, 4]),
        ([35, 15, 100, 100], [35, 15, 5, 5]),
        ([-10, -10, 100, 100], [0, 0, WIDTH, HEIGHT]),
        ([3, 5, 0, 4], None),
        ([3, 5, 4, 0], None),
        ([3, 5, -2, 4], None),
        ([40, 0, 5, 5], None),
        ([0, -9, 5, 9], None),
        ([100, 100, 5, 5], None),
        ([39.9999999, 5, 0.0000001, 4], None),
    ],
)
def test_boxes_are_cut_at_the_border_and_left_out_where_nothing_is_left(
    box: list[float], expected: list[float] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = training_set(edited(tmp_path, box, BOX))
    found = [row["bbox"] for row in images.ground_truth()["annotations"] if row["image_id"] == 1]
    assert found == [*([] if expected is None else [expected]), BOX]
    said = capsys.readouterr().err
    assert (f"boxes of {tmp_path / 'train.json'} without area in their image, left out: 1\n" in said) == (
        expected is None
    )
    corners, _ = images.boxes.mirrored(torch.ones(20), 20).trainable()[0]
    assert (corners[:, 2:] > corners[:, :2]).all()  # detectors refuse others
    assert corners.min() >= 0.0
    assert corners.max() <= 20.0


def test_images_without_boxes_stay(tmp_path: Path) -> None:
    images = training_set(edited(tmp_path))
    assert len(images) == 20
    assert images.labels[0] == 0
    assert len(images.boxes.trainable()[0][1]) == 0
    assert len(images.ground_truth()["images"]) == 20


def test_crowds_are_kept_for_the_evaluation_and_not_trained_on(tmp_path: Path) -> None:
    images = training_set(edited(tmp_path, BOX, iscrowd=1))
    assert images.labels[0] == 0
    assert len(images.boxes.trainable()[0][1]) == 0
    (row,) = [row for row in images.ground_truth()["annotations"] if row["image_id"] == 1]
    assert (row["iscrowd"], row["bbox"], row["category_id"]) == (1, BOX, 1)


def test_an_area_that_is_missing_is_that_of_the_box(tmp_path: Path) -> None:
    images = training_set(edited(tmp_path, BOX))
    assert [row["area"] for row in images.ground_truth()["annotations"] if row["image_id"] == 1] == [48.0]


def test_training_images_without_any_box_are_refused(tmp_path: Path) -> None:
    write({**coco(10), "annotations": []}, tmp_path / "train.json", tmp_path / "images")
    with pytest.raises(UsageError, match=r"train\.json has no box to train on"):
        source_of(tmp_path).splits()


def row_of(table: str, **changes: object) -> dict[str, Any]:
    """Change the second row of a table; None takes an entry away."""
    content = coco(10)
    row = {**content[table][1], **changes}
    content[table] = list(content[table])
    content[table][1] = {key: value for key, value in row.items() if value is not None}
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "not in COCO's format: it has no list of categories"),
        ({**coco(10), "images": None}, "no list of images"),
        ({**coco(10), "images": []}, "lists no images"),
        ({**coco(10), "annotations": [3]}, "entry 1 of its annotations is no object"),
        ({**coco(10), "annotations": {}}, "no list of annotations"),
        (row_of("images", id=1), "image 1 is listed twice"),
        (row_of("images", id=None), "entry 2 of its images needs a whole number as id, not None"),
        (row_of("images", id=[1]), r"entry 2 of its images needs a whole number as id, not \[1\]"),
        (row_of("images", file_name=None), "image 2 needs a text as file_name, not None"),
        (row_of("images", width=None), "image 2 needs a whole number as width, not None"),
        (row_of("images", width="40"), "image 2 needs a whole number as width, not '40'"),
        (row_of("images", height=0), "cannot be 40 by 0 pixels"),
        (row_of("images", height=10**400), "image 2 needs a whole number as height"),
        (row_of("annotations", id=1), "annotation 1 is listed twice"),
        (row_of("annotations", image_id=99), "annotation 2 is of image 99, which is not listed"),
        (row_of("annotations", category_id=1), "annotation 2 is of category 1, which is not listed"),
        (row_of("annotations", bbox=None), "annotation 2 needs left, top, width and height as bbox, not None"),
        (row_of("annotations", bbox=[1, 2, 3]), r"width and height as bbox, not \[1, 2, 3\]"),
        (row_of("annotations", bbox=[1, 2, 3, "4"]), "annotation 2 needs a number as bbox, not '4'"),
        (row_of("annotations", bbox=[1, 2, 3, float("nan")]), "annotation 2 needs a number as bbox, not nan"),
        (row_of("annotations", bbox=[1, 2, float("inf"), 4]), "annotation 2 needs a number as bbox, not inf"),
        (row_of("annotations", area="big"), "annotation 2 needs a number as area, not 'big'"),
        (row_of("annotations", iscrowd="0"), "annotation 2 needs 0 or 1 as iscrowd, not '0'"),
        (row_of("categories", id=7), "category 7 is listed twice"),
        (row_of("categories", name=None), "category 3 needs a text as name, not None"),
    ],
)
def test_annotations_that_contradict_the_format_or_themselves_are_refused(
    content: Any, message: str, tmp_path: Path
) -> None:
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=message) as error:
        source_of(tmp_path).splits()
    assert "\n" not in str(error.value)
    assert str(tmp_path / "train.json") in str(error.value)


def test_missing_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"neither train.json nor annotations/instances_train2017.json nor train/_anno"
    ):
        source_of(tmp_path / "missing").splits()
    for broken in ('{"images": [', "", "[" * 100_000):
        (tmp_path / "train.json").write_text(broken)
        with pytest.raises(UsageError, match=r"train\.json cannot be read as JSON"):
            source_of(tmp_path).splits()


def test_other_classes_in_other_parts_are_refused(tmp_path: Path) -> None:
    write_parts(tmp_path, train=20)
    other = {**coco(4), "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "emu"}]}
    write(other, tmp_path / "test.json", tmp_path / "images")
    with pytest.raises(UsageError, match=r"test\.json has the classes cat, emu, the training images cat, dog"):
        source_of(tmp_path).test_set()


def test_a_category_without_boxes_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the root category that Roboflow writes."""
    content = coco(20)
    content["categories"] = [{"id": 0, "name": "animals"}, *CATEGORIES]
    write(content, tmp_path / "train.json", tmp_path / "images")
    assert source_of(tmp_path).training_images()[1] == 3
    assert "has no box of 1 of its 3 classes, which networks learn to tell all the same: animals\n" in (
        capsys.readouterr().err
    )


def moved(content: dict[str, Any], convert: Callable[[int], object]) -> dict[str, Any]:
    """The content with ids of another kind."""
    images = [{**row, "id": convert(row["id"])} for row in content["images"]]
    rows = [
        {**row, **{key: convert(row[key]) for key in ("id", "image_id", "category_id")}}
        for row in content["annotations"]
    ]
    categories = [{**row, "id": convert(row["id"])} for row in content["categories"]]
    return {**content, "images": images, "annotations": rows, "categories": categories}


@pytest.mark.parametrize("convert", [str, float, lambda number: f"a{number}"])
def test_ids_may_be_text_and_sizes_floating_point_numbers(convert: Callable[[int], object], tmp_path: Path) -> None:
    expected = training_set(write_parts(tmp_path / "plain", train=20))
    content = moved(coco(20), convert)
    content["images"] = [{**row, "width": float(WIDTH), "height": float(HEIGHT)} for row in content["images"]]
    write(content, tmp_path / "train.json", tmp_path / "images")
    found = training_set(tmp_path)
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.boxes.corners, expected.boxes.corners)
    assert found.class_names == ("cat", "dog")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = write_parts(tmp_path, train=20) / "train.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(training_set(tmp_path)) == 20


def test_roboflows_layout_is_known(tmp_path: Path) -> None:
    for number, (part, count) in enumerate({"train": 20, "valid": 6, "test": 5}.items()):
        folder = tmp_path / part
        write(coco(count, 1 + 100 * number), folder / "_annotations.coco.json", folder)
    source = source_of(tmp_path)
    assert len(source.splits().validation) == 6
    assert len(source.test_set()) == 5
    (tmp_path / "test" / "_annotations.coco.json").unlink()
    assert len(source_of(tmp_path).test_set()) == 6


@pytest.mark.parametrize("images", ["", "images", "labels", "labels/images"])
def test_annotations_may_have_names_of_their_own(images: str, tmp_path: Path) -> None:
    for number, (name, count) in enumerate({"ours": 20, "theirs": 6}.items()):
        write(coco(count, 1 + 100 * number), tmp_path / "labels" / f"{name}.json", tmp_path / images)
    source = source_of(tmp_path, annotations=("labels/ours.json", "labels/theirs.json"))
    assert len(source.training_images()[0]) == 20
    assert len(source.test_set()) == 6
    with pytest.raises(UsageError, match=r"labels/none\.json does not exist"):
        source_of(tmp_path, annotations=("labels/none.json",)).splits()
    with pytest.raises(UsageError, match="at most 3 --annotations"):
        source_of(tmp_path, annotations=("a", "b", "c", "d")).splits()


@pytest.mark.parametrize("form", ["images/{}", "images\\{}", "./{}"])
def test_images_may_be_named_from_the_file_of_annotations(form: str, tmp_path: Path) -> None:
    expected = training_set(write_parts(tmp_path, train=20)).images
    content = json.loads((tmp_path / "train.json").read_text())
    for row in content["images"]:
        row["file_name"] = form.format(row["file_name"])
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert torch.equal(training_set(tmp_path).images, expected)
