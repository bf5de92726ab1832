"""Data sets in COCO's format: annotations as JSON, images as files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from rlkd_env.data.detection.files import AnnotatedFiles, DetectionFiles
from rlkd_env.data.splits import Part
from rlkd_env.errors import UsageError
from rlkd_env.utils.files import read_json

_TABLES = {"images": "image", "annotations": "annotation", "categories": "category"}
_KINDS: dict[str, tuple[type, ...]] = {"whole number": (int,), "number": (int, float), "text": (str,)}
_LARGEST_FILE = 4 * 2**30
_ROBOFLOW = "_annotations.coco.json"
_ORDER = ("train", "val", "test")
_LARGEST = 2.0**53
"""The largest number that is accepted; larger ones are not pixels and would not fit into a tensor exactly."""


class COCO(DetectionFiles):
    """Annotations in COCO's format in one of four layouts.

    These are ROOT/train.json, val.json and test.json with ROOT/images; COCO's own ROOT/annotations and ROOT/train2017;
    Roboflow's ROOT/train/_annotations.coco.json among the images, ROOT/valid and ROOT/test; or the files that the
    option ``annotations`` names, with images in their folder, in ROOT or in ROOT/images.

    If there is a test file, the val file, if any, holds the validation images. Otherwise, as with COCO itself, whose
    test annotations are not public, the val file is the test set and validation images are drawn from the training
    images. Without either there is no test set. Crowds are not trained on, and the evaluation ignores what is found in
    them. Category ids may have gaps; the classes keep their order.
    """

    def find(self, part: Part) -> AnnotatedFiles | None:
        """Read the files and objects of a part, or return None if the data set does not have that part."""
        has_test = "test" in self._layout
        place = {"train": "train", "validation": "val" if has_test else "", "test": "test" if has_test else "val"}[part]
        return read_coco(*self._layout[place]) if place in self._layout else None

    @cached_property
    def _layout(self) -> dict[str, tuple[Path, Path]]:
        """The annotation file and the image folder of each existing part: train, val and test."""
        root = self.config.root if self.config.data_path != "auto" else self.config.root / "coco"
        if self.config.annotations:
            return _named_files(root, self.config.annotations)
        folder = root / "annotations"
        years = sorted(path.stem.removeprefix("instances_train") for path in folder.glob("instances_train*.json"))
        if (root / "train.json").is_file():
            layout = {name: (root / f"{name}.json", root / "images") for name in ("train", "val", "valid", "test")}
        elif years:
            names = {name: f"{name}{years[-1]}" for name in ("train", "val", "test")}
            layout = {name: (folder / f"instances_{own}.json", root / own) for name, own in names.items()}
        elif (root / "train" / _ROBOFLOW).is_file():
            layout = {name: (root / name / _ROBOFLOW, root / name) for name in ("train", "val", "valid", "test")}
        else:
            raise UsageError(
                f"there are no annotations in COCO's format in {root}: neither train.json nor "
                f"annotations/instances_train2017.json nor train/{_ROBOFLOW}; pass the folder that holds them as "
                "--data-path, or name the files with --annotations"
            )
        found = {name: paths for name, paths in layout.items() if paths[0].is_file()}
        return {"val" if name == "valid" else name: paths for name, paths in found.items()}


def _named_files(root: Path, names: tuple[str, ...]) -> dict[str, tuple[Path, Path]]:
    """Return the layout of files under names of their own."""
    if len(names) > len(_ORDER):
        raise UsageError(f"there are at most {len(_ORDER)} --annotations: of training, validation and test images")
    return {part: (root / name, _image_folder(root / name, root)) for part, name in zip(_ORDER, names, strict=False)}


def _image_folder(path: Path, root: Path) -> Path:
    """Return the folder in which there is the first image that a file of annotations names, or the file's own."""
    _, row, where = next(_rows(read_json(path), "images", path), (None, {"file_name": ""}, str(path)))
    name = _value(row, "file_name", "text", where)
    folders = (path.parent, root, root / "images", path.parent / "images", root / path.stem)
    return next((folder for folder in folders if (folder / name).is_file()), path.parent)


def _find_image(name: str, folder: Path, beside: Path) -> Path:
    """Return an image's path: relative to its folder, or, as some tools write it, to the file of annotations.

    Windows' separators are understood too.
    """
    tries = [folder / name, beside / name, folder / name.replace("\\", "/"), beside / name.replace("\\", "/")]
    return next((path for path in tries if path.is_file()), tries[0])


def read_coco(path: Path, folder: Path) -> AnnotatedFiles:
    """Read a JSON file in COCO's format whose file names are relative to a folder."""
    content = read_json(path, limit=_LARGEST_FILE)
    categories = _rows(content, "categories", path)
    named = {identity: _value(row, "name", "text", where) for identity, row, where in categories}
    names = dict(sorted(named.items(), key=lambda item: (isinstance(item[0], str), item[0])))
    files = AnnotatedFiles(str(path), tuple(names.values()))
    places: dict[Any, int] = {}
    for identity, row, where in _rows(content, "images", path):
        places[identity] = len(places)
        files.paths.append(_find_image(_value(row, "file_name", "text", where), folder, path.parent))
        columns, rows = (int(_value(row, side, "whole number", where)) for side in ("width", "height"))
        files.sizes.append((columns, rows))
    if not places:
        raise UsageError(f"{path} lists no images")
    classes = {identity: number for number, identity in enumerate(names, start=1)}
    for _, row, where in _rows(content, "annotations", path):
        image, category = (_identity(row, key, where) for key in ("image_id", "category_id"))
        if image not in places:
            raise UsageError(f"{where} is of image {image}, which is not listed")
        if category not in classes:
            raise UsageError(f"{where} is of category {category}, which is not listed")
        left, top, width, height = _box(row, where)
        area = _value(row, "area", "number", where) if "area" in row else width * height
        corners = (left, top, left + width, top + height)
        is_crowd = row.get("iscrowd", 0)
        if is_crowd not in (0, 1):
            raise UsageError(f"{where} needs 0 or 1 as iscrowd, not {is_crowd!r}")
        files.rows.append((places[image], corners, classes[category], bool(is_crowd), area))
    return files


def _rows(content: Any, table: str, path: Path) -> Iterator[tuple[int | str, dict[str, Any], str]]:
    """Yield the rows of one of the three tables with their ids and their names for messages."""
    rows = content.get(table) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise UsageError(f"{path} is not in COCO's format: it has no list of {table}")
    seen = set()
    for place, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UsageError(f"{path} is not in COCO's format: entry {place} of its {table} is no object")
        identity = _identity(row, "id", f"{path}: entry {place} of its {table}")
        where = f"{path}: {_TABLES[table]} {identity}"
        if identity in seen:
            raise UsageError(f"{where} is listed twice")
        seen.add(identity)
        yield identity, row, where


def _identity(row: dict[str, Any], key: str, where: str) -> int | str:
    """Return an id, a whole number even if it is written as text, or text."""
    value = row.get(key)
    if isinstance(value, str) and value:
        return int(value) if value.isdecimal() and len(value) < 19 else value
    return int(_value(row, key, "whole number", where))


def _value(row: dict[str, Any], key: str, kind: str, where: str) -> Any:
    """Return a checked entry of a row."""
    value = row.get(key)
    is_one = isinstance(value, _KINDS[kind]) and not isinstance(value, bool)
    if kind == "whole number" and isinstance(value, float):
        is_one = value.is_integer()
    if not is_one or (isinstance(value, int | float) and not abs(value) <= _LARGEST):
        raise UsageError(f"{where} needs a {kind} as {key}, not {value!r}")
    return value


def _box(row: dict[str, Any], where: str) -> list[float]:
    """Return left, top, width and height of an annotation, in pixels."""
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise UsageError(f"{where} needs left, top, width and height as bbox, not {box!r}")
    return [_value({"bbox": value}, "bbox", "number", where) for value in box]
