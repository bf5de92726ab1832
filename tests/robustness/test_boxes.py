"""Hostile files of data sets with boxes: they are read, or refused in a line, and never waited for."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from coco_files import HEIGHT, WIDTH, source_of, training_set, write_image, write_parts
from damage import damaged

from rlkd_env.errors import UsageError

COUNT = 10
OBJECT = (
    "<object><name>dog</name><bndbox><xmin>{left}</xmin><ymin>5</ymin><xmax>16</xmax><ymax>12</ymax></bndbox></object>"
)
VOC = f"<annotation><size><width>{{width}}</width><height>{HEIGHT}</height></size>{OBJECT}</annotation>"
FILES = {
    "yolo": ["data.yaml", "list.txt", "labels/0.txt", "images/0.png"],
    "coco": ["train.json", "images/001.png"],
    "voc": [
        f"VOCdevkit/VOC2007/{name}" for name in ("ImageSets/Main/train.txt", "Annotations/0.xml", "JPEGImages/0.jpg")
    ],
}
KINDS: dict[str, Callable[[Path], object]] = {
    "nothing": Path.touch,
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path),
    "a file of a terabyte": lambda path: (path.touch(), os.truncate(path, 2**40)),
    "bytes that are no text": lambda path: path.write_bytes(b"\xff\xfe\0\n"),
    "brackets": lambda path: path.write_text("[" * 100_000),
    "tags": lambda path: path.write_text("<a>" * 50_000 + "</a>" * 50_000),
}
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def write(dataset: str, root: Path) -> None:
    """Write a small data set."""
    if dataset == "coco":
        write_parts(root, train=COUNT)
        return
    base = root if dataset == "yolo" else root / "VOCdevkit" / "VOC2007"
    for folder in ("labels",) if dataset == "yolo" else ("Annotations", "ImageSets/Main"):
        (base / folder).mkdir(parents=True)
    for number in range(COUNT):
        if dataset == "yolo":
            write_image(base / "images" / f"{number}.png")
            (base / "labels" / f"{number}.txt").write_text(f"{number % 2} 0.4 0.4 0.2 0.2\n")
        else:
            write_image(base / "JPEGImages" / f"{number}.jpg")
            (base / "Annotations" / f"{number}.xml").write_text(VOC.format(width=WIDTH, left=11))
    if dataset == "yolo":
        (root / "data.yaml").write_text("names: [cat, dog]\ntrain: list.txt\n")
        (root / "list.txt").write_text("".join(f"images/{number}.png\n" for number in range(COUNT)))
    else:
        for part in ("train", "val"):
            (base / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(f"{n}\n" for n in range(COUNT)))


def told(dataset: str, root: Path) -> str | None:
    """Load data; return why they are refused, or None if they are not."""
    path = root / "data.yaml" if dataset == "yolo" else root  # named itself, it is opened whatever it is
    signal.alarm(20)
    try:
        training_set(root, dataset=dataset, data_path=str(path))
        source_of(root, dataset=dataset, data_path=str(path)).test_set()
    except UsageError as error:
        return str(error)
    finally:
        signal.alarm(0)
    return None


@pytest.mark.attack
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_such_file(kind: str, tmp_path: Path, tally: Counter[str]) -> None:
    for dataset, names in FILES.items():
        write(dataset, tmp_path / dataset)
        for name in names:
            root = tmp_path / f"{dataset} {name.replace('/', ' ')}"
            shutil.copytree(tmp_path / dataset, root)
            (root / name).unlink()
            KINDS[kind](root / name)
            tally["hostile files"] += 1
            reason = told(dataset, root)
            is_free = kind == "nothing" and name == "labels/0.txt"  # an image without objects
            assert (reason is None) == is_free, (name, reason)
            assert is_free or "\n" not in reason


@pytest.mark.attack
@pytest.mark.parametrize("dataset", FILES)
def test_damaged_annotations(dataset: str, is_full: bool, tmp_path: Path, tally: Counter[str]) -> None:
    write(dataset, tmp_path / "whole")
    for name in FILES[dataset]:
        content = (tmp_path / "whole" / name).read_bytes()
        for number in range(24 if is_full else 4):
            root = tmp_path / f"{name.replace('/', ' ')} {number}"
            shutil.copytree(tmp_path / "whole", root)
            (root / name).write_bytes(damaged(content, number))
            tally["damaged files"] += 1
            told(dataset, root)  # anything else than a UsageError ends the test


@pytest.mark.attack
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{LAUGHS}\nnames: *i\ntrain: images\n", "nested too deeply, or repeats itself"),
        (f"{LAUGHS}\nnames: [a]\ntrain: *i\n", "nested too deeply, or repeats itself"),
        ("names: [a]\ntrain: &a [*a]\n", "nested too deeply, or repeats itself"),
        ("names: [a]\npath: ~nobody/here\ntrain: missing\n", "names missing, but there is no"),
        ('names: [a]\ntrain: "a\\0b"\n', "there is no"),
    ],
)
def test_hostile_lists_of_yolo(content: str, message: str, tmp_path: Path) -> None:
    write("yolo", tmp_path)
    (tmp_path / "data.yaml").write_text(content)
    assert message in (told("yolo", tmp_path) or "accepted")


@pytest.mark.parametrize(
    ("width", "left", "message"),
    [("40", "nan", "are no numbers"), ("40", "inf", "are no numbers"), ("9" * 30, "11", "cannot be 999")],
)
def test_boxes_and_sizes_of_voc_are_numbers(width: str, left: str, message: str, tmp_path: Path) -> None:
    write("voc", tmp_path)
    (tmp_path / FILES["voc"][1]).write_text(VOC.format(width=width, left=left))
    assert message in (told("voc", tmp_path) or "accepted")
