"""The images that the report shows of a detection run, with their objects, detections and proposals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.session.folder import DETECTIONS_FILE
from rlkd_env.data import Batch, ImageSet
from rlkd_env.instances.temperature import Policy
from rlkd_env.runs.run import DistillationRun
from rlkd_env.tasks.detection.average_precision import Detections
from rlkd_env.utils.files import read_tensors, reading, write_tensors
from rlkd_env.utils.randomness import seeded

if TYPE_CHECKING:
    from rlkd_env.tasks.detection.task import Detection

DETECTIONS_VERSION = "1"
MOST_IMAGES = 6  # in a file
LONGEST_SIDE = 320  # pixels; larger images are scaled down, with everything drawn on them
_COLUMNS = {
    "real": ("corners", "classes"),
    "teacher": ("corners", "scores", "classes"),
    "student": ("corners", "scores", "classes"),
    "proposals": ("corners", "temperatures", "objectness"),
}
"""The values that are stored for each kind of box."""


class RealBoxes(NamedTuple):
    """The objects of an image: corners ``(m, 4)``, left, top, right, bottom in pixels, and classes ``(m,)`` from 1."""

    corners: Tensor
    classes: Tensor


class Proposals(NamedTuple):
    """The instances of an image: corners ``(n, 4)`` in pixels, temperatures ``(n,)``, objectness ``(n,)`` in [0, 1]."""

    corners: Tensor
    temperatures: Tensor
    objectness: Tensor


@dataclass(frozen=True, eq=False)
class DetectedImage:
    """An image ``(channels, height, width)``, uint8, with everything that is drawn on it, in its pixels."""

    pixels: Tensor
    real: RealBoxes
    teacher: Detections
    student: Detections
    proposals: Proposals


@dataclass(frozen=True, eq=False)
class DetectionRecord:
    """The content of ``detections.safetensors``: at most :data:`MOST_IMAGES` images, names of classes 1 to C."""

    class_names: tuple[str, ...]
    images: list[DetectedImage]


@torch.no_grad()
def show_detections(
    folder: Path, run: DistillationRun, student: nn.Module, policy: Policy, class_names: tuple[str, ...]
) -> None:
    """Write ``detections.safetensors`` of the first validation images."""
    task = cast("Detection", run.task)  # whose module needs torchvision's detectors, which take long to import
    positions = torch.arange(min(MOST_IMAGES, len(run.splits.validation)))
    shown = run.splits.validation.subset(positions)
    boxes = shown.take_boxes(positions)
    if boxes is None:
        raise ValueError("these images have no boxes")
    batch = Batch(shown.images, shown.labels, positions.to(run.device), boxes=boxes)
    with seeded(0, run.device):
        outputs = task.forward(student.eval(), run.frozen_teacher, batch)
    outputs = replace(outputs, progress=run.progress, epoch=float(run.epoch), step=run.step_count)
    regions = outputs.regions
    if regions is None:
        raise ValueError("the instances are whole images")
    instances = (regions.corners, policy(outputs).student, regions.objectness)
    per_image = (values.split(task.instances_per_image) for values in instances)
    write_detections(
        folder,
        _pixels(shown),
        class_names,
        boxes.trainable(),
        task.detect(run.frozen_teacher, shown),
        task.detect(student, shown),
        list(zip(*per_image, strict=True)),
    )


def _pixels(images: ImageSet) -> Tensor:
    """Undo the normalisation, giving ``(k, channels, height, width)`` in [0, 1]."""
    preprocessing = images.preprocessing
    if not preprocessing.mean:
        return images.images
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return images.images.cpu() * std + mean


def write_detections(
    folder: Path,
    images: Tensor,
    class_names: Sequence[str],
    real: Sequence[tuple[Tensor, Tensor]],
    teacher: Sequence[Detections],
    student: Sequence[Detections],
    proposals: Sequence[tuple[Tensor, Tensor, Tensor]],
) -> None:
    """Write ``detections.safetensors`` atomically, with at most the first :data:`MOST_IMAGES` images.

    The images are ``(k, channels, height, width)`` in ``[0, 1]``, and all corners are in their pixels. An image's real
    boxes are corners ``(m, 4)`` and classes ``(m,)``; its proposals are corners ``(n, 4)``, temperatures ``(n,)`` and
    objectness ``(n,)``.
    """
    if not len(images):
        raise ValueError("there is no image to write")
    if not len(images) == len(real) == len(teacher) == len(student) == len(proposals):
        raise ValueError("boxes, detections and proposals must be of the same images")
    boxes = {
        "real": real,
        "teacher": [(found.corners, found.scores, found.classes) for found in teacher],
        "student": [(found.corners, found.scores, found.classes) for found in student],
        "proposals": proposals,
    }
    shown = images[:MOST_IMAGES].detach().float().cpu()
    scale = min(1.0, LONGEST_SIDE / max(shown.shape[-2:]))
    if scale < 1.0:
        shown = F.interpolate(shown, scale_factor=scale, mode="bilinear", antialias=True)
    tensors = {"images": (255.0 * shown.clamp(0.0, 1.0)).round().to(torch.uint8)}
    for kind, of_images in boxes.items():
        chosen = of_images[:MOST_IMAGES]
        tensors[f"{kind}.count"] = torch.tensor([len(of_image[0]) for of_image in chosen])
        for number, column in enumerate(_COLUMNS[kind]):
            values = torch.cat([of_image[number].detach().cpu() for of_image in chosen])
            tensors[f"{kind}.{column}"] = values.long() if column == "classes" else values.float()
        tensors[f"{kind}.corners"] *= scale
    card = {"version": DETECTIONS_VERSION, "class_names": list(class_names)}
    # One entry, as safetensors shuffles several and the same run should give the same file.
    write_tensors(folder / DETECTIONS_FILE, tensors, {"detections": json.dumps(card)})


def read_detections(folder: Path) -> DetectionRecord | None:
    """Read the file that :func:`write_detections` writes; None if there is no such file."""
    path = folder / DETECTIONS_FILE
    if not path.exists():
        return None
    tensors, metadata = read_tensors(path)
    with reading(path):
        card = json.loads(metadata["detections"])
        version, class_names = card["version"], tuple(str(name) for name in card["class_names"])
        images = tensors["images"]
        if version != DETECTIONS_VERSION:
            raise ValueError(f"of version {version}, not {DETECTIONS_VERSION}")
        of_kind = {kind: _split(tensors, kind, len(images)) for kind in _COLUMNS}
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise ValueError("images must be bytes (k, channels, height, width)")
        shown = [
            DetectedImage(pixels, RealBoxes(*real), Detections(*teacher), Detections(*student), Proposals(*proposals))
            for pixels, real, teacher, student, proposals in zip(images, *of_kind.values(), strict=True)
        ]
    return DetectionRecord(class_names, shown)


def _split(tensors: dict[str, Tensor], kind: str, num_images: int) -> list[tuple[Tensor, ...]]:
    """Return the columns of a kind of boxes for every image."""
    counts = tensors[f"{kind}.count"].tolist()
    columns = [tensors[f"{kind}.{column}"] for column in _COLUMNS[kind]]
    is_right = [column.shape[1:] == ((4,) if number == 0 else ()) for number, column in enumerate(columns)]
    if len(counts) != num_images or not all(is_right):
        raise ValueError(f"the boxes of {kind} do not fit the images")
    return list(zip(*(column.split(counts) for column in columns), strict=True))
