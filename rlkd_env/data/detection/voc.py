"""Pascal VOC through torchvision: 20 classes of objects in photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from torchvision.datasets import VOCDetection

from rlkd_env.data.detection.files import AnnotatedFiles, DetectionFiles
from rlkd_env.data.splits import Part
from rlkd_env.errors import UsageError
from rlkd_env.utils.files import check_regular, read_bytes

_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor"
)
CLASS_NAMES = tuple(_NAMES.split())
_LARGEST_FILE = 2**24

ImageList = tuple[str, str]
"""The year and name of one of VOC's image lists."""


class VOC(DetectionFiles):
    """ROOT/VOCdevkit/VOC2007 and VOC2012, of which one is enough.

    As is usual, networks train on ``trainval`` of both years and are tested on ``test`` of 2007. Without the latter
    they train on ``train`` and are tested on ``val`` of the available years. Validation images are drawn from the
    training images. Difficult objects are treated like COCO's crowds: they are not trained on, and the evaluation
    ignores them and what is found in them.
    """

    def find(self, part: Part) -> AnnotatedFiles | None:
        """Read the files and objects of a part, or return None if the data set does not have that part."""
        if part == "validation":
            return None
        if self.config.download:
            for year, name in (("2007", "trainval"), ("2007", "test"), ("2012", "trainval")):
                self._open((year, name), download=not self._has((year, name)))
        has_test = self._has(("2007", "test"))
        name = ("trainval" if part == "train" else "test") if has_test else ("train" if part == "train" else "val")
        years = ("2007",) if name == "test" else ("2007", "2012")
        lists = [(year, name) for year in years if self._has((year, name))]
        if not lists:
            raise UsageError(
                f"Pascal VOC is not in {self.config.root}: there is no VOCdevkit/VOC2007 or VOC2012 with the list "
                f"{name} of images; pass --download, or the folder that holds VOCdevkit as --data-path"
            )
        files = AnnotatedFiles(f"Pascal VOC in {self.config.root}", CLASS_NAMES)
        for chosen in lists:
            dataset = self._open(chosen)
            for image, annotation in zip(dataset.images, dataset.annotations, strict=True):
                _add(files, Path(image), Path(annotation))
        if not files.paths:
            raise UsageError(f"the list {name} of {files.name} names no images")
        return files

    def _has(self, chosen: ImageList) -> bool:
        return self._list_of(chosen).is_file()

    def _list_of(self, chosen: ImageList) -> Path:
        year, name = chosen
        return self.config.root / "VOCdevkit" / f"VOC{year}" / "ImageSets" / "Main" / f"{name}.txt"

    def _open(self, chosen: ImageList, download: bool = False) -> VOCDetection:
        year, name = chosen
        if not download:
            check_regular(self._list_of(chosen), _LARGEST_FILE)
        try:
            return VOCDetection(str(self.config.root), year, name, download=download)
        except (RuntimeError, OSError, UnicodeDecodeError) as error:
            raise UsageError(f"Pascal VOC {year} could not be loaded from {self.config.root}: {error}") from None


def _add(files: AnnotatedFiles, image: Path, annotation: Path) -> None:
    """Add an image and its objects; VOC's pixels count from 1, and a box includes its last pixel."""
    try:
        content = VOCDetection.parse_voc_xml(ElementTree.fromstring(read_bytes(annotation, _LARGEST_FILE)))[
            "annotation"
        ]
        size = content["size"]
        width, height = int(size["width"]), int(size["height"])
        objects = [_object(found) for found in content["object"]]
    except UsageError:
        raise
    except (ElementTree.ParseError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{annotation} is not an annotation in Pascal VOC's format: {reason}") from None
    place = len(files.paths)
    files.paths.append(image)
    files.sizes.append((width, height))
    files.rows.extend((place, *found) for found in objects)


def _object(found: dict[str, Any]) -> tuple[tuple[float, float, float, float], int, bool, float]:
    """Return an object's corners, class, whether it is difficult, and area."""
    left, top, right, bottom = (float(found["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax"))
    corners = (left - 1.0, top - 1.0, right, bottom)
    if found["name"] not in CLASS_NAMES:
        raise ValueError(
            f"{found['name']!r} is not one of its classes; data of your own can be brought into COCO's or YOLO's form"
        )
    area = (right - left + 1.0) * (bottom - top + 1.0)
    return corners, CLASS_NAMES.index(found["name"]) + 1, found.get("difficult") == "1", area
