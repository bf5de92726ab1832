"""Data sets with labels in YOLO's text form: a text file beside every image, and one YAML file for all."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from rlkd_env.data.decoding import image_suffixes, opened, size_as_seen
from rlkd_env.data.detection.files import AnnotatedFiles, DetectionFiles
from rlkd_env.data.splits import Part
from rlkd_env.errors import UsageError
from rlkd_env.utils.files import expanded, read_text, read_yaml
from rlkd_env.utils.notices import tell

_PARTS: dict[Part, tuple[str, ...]] = {"train": ("train",), "validation": ("val", "valid"), "test": ("test",)}
"""The keys of the parts in the YAML file."""
_LARGEST_TEXT = 2**28
"""Bytes of the largest text file: a list of a few million images."""
_MOST_CLASSES = 10_000
_LARGEST_SHARE = 1.1
"""Corners of polygons lie a little outside of images here and there."""


class YOLO(DetectionFiles):
    """ROOT/data.yaml, which names the classes and the parts' images, and a file of labels for each of these.

    The YAML file is the only one in ROOT, that named by the option ``annotations``, or the data path itself. It holds
    ``names`` (a list, or a mapping from 0; without them classes are called by their numbers below ``nc``), ``train``
    and perhaps ``val`` and ``test``: a folder of images, a text file that lists them, or several of these, relative to
    its ``path`` or to itself. The labels of ``images/x.jpg`` are in ``labels/x.txt``, a line an object: its class from
    0, and centre, width and height as shares of the image's, or the corners of a polygon, whose box is taken. Keypoints
    (``kpt_shape``) are passed over. An image without such a file has no objects, which is told. Validation images are
    drawn from the training images if there are none.
    """

    def find(self, part: Part) -> AnnotatedFiles | None:
        """Read the files and objects of a part, or return None if the data set does not have that part."""
        content = self._content
        entry = next((content[key] for key in _PARTS[part] if content.get(key)), None)
        if entry is None:
            return None
        names = _class_names(content.get("names"), content.get("nc"), self._file)
        files = AnnotatedFiles(f"the {part} images of {self._file}", names)
        has_keypoints = content.get("kpt_shape") is not None
        without = [path for path in _images(entry, self._base, self._file) if not _add(files, path, has_keypoints)]
        if not files.paths:
            raise UsageError(f"{self._file} names no images under {part}")
        if without:
            tell(
                f"{files.name}: {len(without)} of {len(files.paths)} have no file of labels, such as "
                f"{_labels_of(without[0])}, and so no objects"
            )
        return files

    @cached_property
    def _file(self) -> Path:
        """The YAML file."""
        root = self.config.root
        if root.suffix in (".yaml", ".yml"):
            return root
        if len(self.config.annotations) > 1:
            raise UsageError("data in YOLO's form have one file of --annotations, a YAML file")
        found = [root / name for name in self.config.annotations] or sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
        if len(found) != 1 or not found[0].is_file():
            told = ", ".join(path.name for path in found) or "none"
            raise UsageError(
                f"{root} needs one YAML file in YOLO's form, such as data.yaml ({told} found): name it with "
                "--annotations, or pass it as --data-path"
            )
        return found[0]

    @cached_property
    def _content(self) -> dict[str, Any]:
        content = read_yaml(read_text(self._file, _LARGEST_TEXT), str(self._file))
        if not isinstance(content, dict) or "train" not in content:
            raise UsageError(f"{self._file} is not in YOLO's form: it has no entry train")
        return content

    @property
    def _base(self) -> Path:
        """The folder that the entries of the YAML file are relative to."""
        own = self._content.get("path")
        base = self._file.parent if own is None else self._file.parent / expanded(str(own))
        return base if base.is_dir() else self._file.parent  # the path on another machine


def _class_names(names: Any, count: Any, file: Path) -> tuple[str, ...]:
    """Return the classes' names; ``count`` is what the file says of their number, or None."""
    if names is None and isinstance(count, int) and 0 < count <= _MOST_CLASSES:
        names = list(range(count))
    if isinstance(names, dict):
        numbered = {str(number): name for number, name in names.items()}
        expected = list(map(str, range(len(names))))
        names = [numbered[number] for number in expected] if numbered.keys() == set(expected) else None
    if not isinstance(names, list) or not names:
        raise UsageError(f"{file} needs the classes' names, as a list or counted from 0")
    if count not in (None, len(names)):
        raise UsageError(f"{file} names {len(names)} classes, but says that there are {count} (nc)")
    return tuple(map(str, names))


def _images(entry: Any, base: Path, file: Path) -> Iterator[Path]:
    """Yield the images of a folder, of a text file's lines, or of several such entries."""
    if isinstance(entry, list):
        for one in entry:
            yield from _images(one, base, file)
        return
    # Roboflow's entries begin with ../, although the folders lie beside the file.
    tries = [base / str(entry), base / str(entry).removeprefix("../")]
    path = next((one for one in tries if one.exists()), None)
    if path is None:
        raise UsageError(f"{file} names {entry}, but there is no {tries[0]}")
    if path.is_dir():
        found = (one for one in sorted(path.rglob("*")) if not one.name.startswith("."))
        yield from (one for one in found if one.suffix.lower() in image_suffixes())
        return
    for line in read_text(path, _LARGEST_TEXT).splitlines():
        if line.strip():
            yield path.parent / line.strip()


def _add(files: AnnotatedFiles, path: Path, has_keypoints: bool) -> bool:
    """Add an image and its objects; return whether it has a file of labels."""
    with opened(path) as image:
        width, height = size_as_seen(image)
    place, labels = len(files.paths), _labels_of(path)
    files.paths.append(path)
    files.sizes.append((width, height))
    if not os.path.lexists(labels):
        return False
    for number, line in enumerate(read_text(labels, _LARGEST_TEXT).splitlines(), start=1):
        if line.strip():
            where = f"{labels}, line {number}"
            name, shares = _read_line(line, where, len(files.class_names), has_keypoints)
            left, top, right, bottom = (share * side for share, side in zip(shares, (width, height) * 2, strict=True))
            corners = (left, top, right, bottom)
            files.rows.append((place, corners, name + 1, False, (right - left) * (bottom - top)))
    return True


def _labels_of(path: Path) -> Path:
    """Return the file of an image's labels: the last folder ``images`` on its path is called ``labels``."""
    parts = list(path.parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read_line(
    line: str, where: str, num_classes: int, has_keypoints: bool
) -> tuple[int, tuple[float, float, float, float]]:
    """Return an object's class from 0, and its corners as shares of the image's width and height."""
    try:
        name, *numbers = map(float, line.split())
    except ValueError:
        raise UsageError(f"{where} holds other things than numbers: {line.strip()[:40]!r}") from None
    if not name.is_integer() or not 0 <= name < num_classes:
        raise UsageError(f"{where} is of class {name:g}, but there are {num_classes} classes, counted from 0")
    numbers = numbers[:4] if has_keypoints else numbers
    if not all(map(math.isfinite, numbers)) or any(abs(number) > 2 for number in numbers):
        raise UsageError(f"{where} holds pixels: centre, width and height must be shares of the image's")
    if len(numbers) == 4:
        x, y, width, height = numbers
        return int(name), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if len(numbers) < 6 or len(numbers) % 2:
        raise UsageError(f"{where} needs four numbers after the class, or the corners of a polygon, not {len(numbers)}")
    if max(numbers) > _LARGEST_SHARE:
        raise UsageError(f"{where} holds no polygon, whose corners are shares of the image's sides, from 0 to 1")
    xs, ys = numbers[::2], numbers[1::2]
    return int(name), (min(xs), min(ys), max(xs), max(ys))
