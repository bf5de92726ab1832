"""Labels in YOLO's text form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from coco_files import BOX, HEIGHT, WIDTH, training_set, write_image, write_parts
from PIL import Image

from rlkd_env.data import DataConfig, DataSource, create_source
from rlkd_env.errors import UsageError

LEFT, TOP, BOX_WIDTH, BOX_HEIGHT = BOX
SHARES = f"{(LEFT + BOX_WIDTH / 2) / WIDTH} {(TOP + BOX_HEIGHT / 2) / HEIGHT} {BOX_WIDTH / WIDTH} {BOX_HEIGHT / HEIGHT}"


def write_yolo(root: Path, folders: dict[str, str], names: Any = ("cat", "dog"), **more: object) -> Path:
    """Twenty images a part, whose last folder ``images`` the labels' folder stands beside; cats and dogs in turn."""
    for folder in folders.values():
        for number in range(20):
            image = root / folder / f"{number:03d}.png"
            write_image(image)
            labels = Path(*("labels" if part == "images" else part for part in image.parts)).with_suffix(".txt")
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text(f"{number % 2} {SHARES}\n")
    (root / "data.yaml").write_text(yaml.safe_dump({**folders, "names": names, **more}))
    return root


def yolo(root: Path, **options: object) -> DataSource:
    settings = {"dataset": "yolo", "data_path": str(root), "image_size": 20, "workers": 0, "probe_size": 2, **options}
    return create_source(DataConfig(**settings))


@pytest.mark.parametrize("names", [["cat", "dog"], {0: "cat", 1: "dog"}, {"1": "dog", "0": "cat"}])
@pytest.mark.parametrize(
    "folders",
    [
        {"train": "images/train", "val": "images/val", "test": "images/test"},
        {"train": "train/images", "val": "valid/images", "test": "test/images"},
    ],
)
def test_boxes_are_those_of_the_same_data_in_cocos_format(folders: dict[str, str], names: Any, tmp_path: Path) -> None:
    expected = training_set(write_parts(tmp_path / "coco", train=20))
    source = yolo(write_yolo(tmp_path / "yolo", folders, names))
    found = source.training_images()[0]
    torch.testing.assert_close(found.boxes.corners, expected.boxes.corners)
    assert torch.equal(found.images, expected.images)
    assert found.labels.tolist() == [1, 2] * 10
    assert source.class_names == ("cat", "dog")
    assert (len(source.splits().validation), len(source.test_set())) == (20, 20)


def test_without_them_validation_images_are_drawn_and_there_is_no_test_set(tmp_path: Path) -> None:
    source = yolo(write_yolo(tmp_path, {"train": "images/train"}))
    assert len(source.splits().validation) == 2
    assert source.test_set() is None


def test_parts_may_be_lists_of_files_and_of_folders_and_lie_where_roboflow_says(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, {"train": "train/images", "val": "valid/images"})
    listed = [f"./train/images/{number:03d}.png" for number in range(5)]
    (root / "some.txt").write_text("\n".join(listed) + "\n\n")
    content = {"names": ["cat", "dog"], "train": ["some.txt", "../valid/images"], "path": "/home/somebody/else"}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    assert len(yolo(root).training_images()[0]) == 25
    assert len(yolo(root / "data.yaml").training_images()[0]) == 25
    (root / "other.yaml").write_text(yaml.safe_dump({**content, "train": "valid/images"}))
    assert len(yolo(root, annotations=("other.yaml",)).training_images()[0]) == 20
    with pytest.raises(UsageError, match=r"one YAML file .*\(data.yaml, other.yaml found\): name it with --annot"):
        yolo(root).splits()


def test_polygons_have_boxes_and_images_without_labels_no_objects(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, {"train": "images"})
    (root / "labels" / "000.txt").write_text("1 0.1 0.5 0.4 0.25 0.3 0.75\n0 0.5 0.5 0.2 0.2\n")
    (root / "labels" / "001.txt").unlink()
    (root / "labels" / "002.txt").write_text("\n")
    images = yolo(root).training_images()[0]
    corners = images.boxes.corners[0][images.boxes.classes[0].argsort(descending=True)]
    torch.testing.assert_close(corners[0], torch.tensor([0.1 * 20, 0.25 * 10, 0.4 * 20, 0.75 * 10]))
    assert images.labels[1:4].tolist() == [0, 0, 2]


def test_sizes_are_those_of_the_picture_as_it_is_shown(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, {"train": "images"})
    expected = yolo(root).training_images()[0]
    path, exif = root / "images" / "000.png", Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as picture:
        turned = picture.transpose(Image.Transpose.ROTATE_90)
    turned.save(path, exif=exif)
    found = yolo(root).training_images()[0]
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.boxes.corners, expected.boxes.corners)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat 0.5 0.5 0.2 0.2", r"000.txt, line 1 holds other things than numbers: 'cat 0.5"),
        ("2 0.5 0.5 0.2 0.2", "line 1 is of class 2, but there are 2 classes, counted from 0"),
        ("0.5 0.5 0.5 0.2 0.2", "is of class 0.5"),
        ("-1 0.5 0.5 0.2 0.2", "is of class -1"),
        ("0 12 14 20 20", "holds pixels"),
        ("0 nan 0.5 0.2 0.2", "holds pixels"),
        ("0 0.5 0.5 0.2", "needs four numbers after the class, or the corners of a polygon, not 3"),
        ("0", "not 0"),
    ],
)
def test_other_lines_are_refused(line: str, message: str, tmp_path: Path) -> None:
    root = write_yolo(tmp_path, {"train": "images"})
    (root / "labels" / "000.txt").write_text(line)
    with pytest.raises(UsageError, match=message):
        yolo(root).splits()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"names": ["cat"]}, "it has no entry train"),
        (["train"], "it has no entry train"),
        ({"train": "nowhere", "names": ["cat"]}, "names nowhere, but there is no"),
        ({"train": "images"}, "needs the classes' names"),
        ({"train": "images", "names": {1: "cat"}}, "needs the classes' names"),
        ({"train": "labels", "names": ["cat", "dog"]}, "names no images under train"),
    ],
)
def test_other_yaml_files_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    root = write_yolo(tmp_path, {"train": "images"})
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=message):
        yolo(root).splits()
    (root / "data.yaml").write_text("{")
    with pytest.raises(UsageError, match="neither JSON nor YAML"):
        yolo(root).splits()


def test_classes_without_names_are_called_by_their_numbers(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"train": "images"})
    (tmp_path / "data.yaml").write_text("train: images\nnc: 3\n")
    assert yolo(tmp_path).class_names == ("0", "1", "2")
    (tmp_path / "data.yaml").write_text("train: images\nnc: 3\nnames: [cat, dog]\n")
    with pytest.raises(UsageError, match=r"names 2 classes, but says that there are 3 \(nc\)"):
        yolo(tmp_path).splits()


def test_keypoints_are_no_polygon(tmp_path: Path) -> None:
    line, plain = f"0 {SHARES} 0.1 0.1 2 0.3 0.2 2\n", f"0 {SHARES}\n"
    boxes = []
    for name, text, more in (("pose", line, {"kpt_shape": [2, 3]}), ("plain", plain, {})):
        root = write_yolo(tmp_path / name, {"train": "images"}, **more)
        for path in (root / "labels").iterdir():
            path.write_text(text)
        boxes.append(yolo(root).training_images()[0].boxes.corners)
    assert torch.equal(*boxes)
    (tmp_path / "pose" / "data.yaml").write_text("train: images\nnames: [cat, dog]\n")
    with pytest.raises(UsageError, match="holds no polygon"):
        yolo(tmp_path / "pose").splits()


def test_images_without_labels_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_yolo(tmp_path, {"train": "images"})
    for path in sorted((root / "labels").iterdir())[:7]:
        path.unlink()
    yolo(root).training_images()
    assert re.search(r"7 of 20 have no file of labels, such as \S*labels/000.txt, and so", capsys.readouterr().err)
