"""How images lie in folders: the parts of a data set, its classes, and their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from torchvision.datasets.folder import make_dataset

from rlkd_env.data.decoding import image_suffixes
from rlkd_env.data.splits import Part
from rlkd_env.errors import UsageError
from rlkd_env.utils.notices import tell

Sample = tuple[Path, int]
"""A file and its class."""

_PART_NAMES: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_MOST_COUNTS = 12
"""Classes up to this number are counted one by one when they are told."""


def find_parts(root: Path) -> dict[Part, Path]:
    """Return the folders of the parts in a folder, in whatever letters their names are; none if it is not split.

    Raises:
        UsageError: If there is no such folder, or one part has two.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}: pass the folder with the images as --data-path")
    folders = _folders(root)
    found: dict[Part, Path] = {}
    for part, names in _PART_NAMES.items():
        own = [folder for folder in folders if folder.name.casefold() in names]
        if len(own) > 1:
            told = " and ".join(folder.name for folder in own)
            raise UsageError(f"{root} holds {told}, which are one part of the data: put them together, or one away")
        if own:
            found[part] = own[0]
    return found if "train" in found else {}


def tell_of_others(root: Path, parts: Iterable[Path]) -> None:
    """Tell of the folders beside those of the parts, which nobody reads."""
    others = [folder.name for folder in _folders(root) if folder not in parts]
    if others:
        few = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
        tell(f"{root}: left out, as their names are those of no part: {few}")


def list_classes(root: Path, part: Part | None = None) -> tuple[list[Sample], list[str]]:
    """List the image files with their classes, one folder per class, and the classes' names in order.

    Names that begin with a dot are passed over, and what else is left out is told. The folder holds a part of the data,
    or all of them.

    Raises:
        UsageError: If there are no classes, or one has no images, or what looks like classes are none.
    """
    folders = _folders(root)
    _check_folders(root, folders, part)
    left_out: Counter[str] = Counter()
    seen: set[Path] = set()
    known: dict[Path, Path] = {}

    def is_image(name: str) -> bool:
        path = Path(name)
        if path.parent not in seen:
            seen.add(path.parent)
            _check_link(path.parent, known)
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            return False
        if path.suffix.lower() in image_suffixes():
            return True
        left_out[path.suffix or path.name] += 1
        return False

    names = [folder.name for folder in folders]
    try:
        found = make_dataset(str(root), {name: number for number, name in enumerate(names)}, is_valid_file=is_image)
    except FileNotFoundError as error:
        raise UsageError(f"{root} does not hold one folder per class with images in it: {error}") from None
    samples = [(Path(path), label) for path, label in found]
    tell(f"{root}: {len(samples)} images of {len(names)} classes: {_counts(samples, names)}")
    if left_out:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in left_out.most_common(5))
        tell(f"{root}: {left_out.total()} files are left out, as their names are those of no image: {kinds}")
    return samples, names


def _folders(root: Path) -> list[Path]:
    """Return the folders in a folder, in order."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _check_folders(root: Path, folders: list[Path], part: Part | None) -> None:
    """Refuse what is no choice of classes: none or a single one, or parts of the data."""
    if not folders:
        raise UsageError(f"{root} does not hold one folder per class with images in it: it holds no folder")
    part_names = {name for names in _PART_NAMES.values() for name in names}
    parts = [path.name for path in folders if path.name.casefold() in part_names and (part is None or _folders(path))]
    if parts:
        raise UsageError(
            f"the folder {parts[0]} in {root} is a part of the data by its name, not a class: put the training images "
            "into a folder train beside it, or give it another name"
        )
    for folder in folders:
        inner = [path.name for path in _folders(folder) if path.name.casefold() in part_names]
        if len(inner) > 1:
            raise UsageError(
                f"{folder} holds {' and '.join(inner)}, which are parts of the data: put the classes into folders "
                f"{' and '.join(inner)}, not these into the classes"
            )
    if len(folders) == 1 and part in (None, "train"):
        inside = _folders(folders[0])
        hint = f"; if the classes are in there, pass {folders[0]} as --data-path" if inside else ""
        raise UsageError(f"{root} holds a single class, {folders[0].name}: there is nothing to tell apart{hint}")


def _check_link(folder: Path, known: dict[Path, Path]) -> None:
    """Refuse a folder that is there under another name too, by a link; ``known`` are those seen before."""
    before = known.setdefault(folder.resolve(), folder)
    if before != folder:
        raise UsageError(f"{folder} is {before} once more, by a link: its images would count twice")


def _counts(samples: list[Sample], names: list[str]) -> str:
    """Return how many images there are of each class, or of the rarest and the commonest."""
    counts = Counter(label for _, label in samples)
    if len(names) <= _MOST_COUNTS:
        return ", ".join(f"{name} {counts[label]}" for label, name in enumerate(names))
    least, most = min(counts.values()), max(counts.values())
    return f"{names[0]}, {names[1]}, … {names[-1]}, {least} to {most} of each"
