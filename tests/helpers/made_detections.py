"""A detection run's folder without a detector: images of two objects each, and what teacher and student found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from experiments.session.detections import write_detections
from rlkd_env.tasks.detection.average_precision import Detections

CLASS_NAMES = ("ring", "cross")
REAL = torch.tensor([[4.0, 4.0, 20.0, 16.0], [30.0, 10.0, 44.0, 30.0]])
DETAILS = {"AP50": 0.6125, "AP75": 0.3, "AP_small": 0.1234, "AP_large": None}
NO_BOX = torch.zeros(0, 4)
NOTHING = torch.zeros(0)


def found(corners: torch.Tensor, scores: list[float], classes: list[int]) -> Detections:
    return Detections(corners, torch.tensor(scores), torch.tensor(classes, dtype=torch.int64))


def write_example(folder: Path, num_images: int = 2, height: int = 32, width: int = 48, **others: Any) -> None:
    """Write detections whose student misses the second object; other arguments replace those of an image."""
    of_image: dict[str, Any] = {
        "real": (REAL, torch.tensor([1, 2])),
        "teacher": found(REAL + 1.0, [0.7, 0.9], [1, 2]),
        "student": found(REAL + 2.0, [0.8, 0.3], [1, 2]),
        "proposals": (REAL.repeat(3, 1), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), torch.linspace(0.0, 1.0, 6)),
    }
    images = torch.rand(num_images, 3, height, width, generator=torch.Generator().manual_seed(0))
    columns = {name: [value] * num_images for name, value in (of_image | others).items()}
    write_detections(folder, images, CLASS_NAMES, **columns)


def tell_of_detection(folder: Path) -> None:
    """Make a run's summary one of detectors."""
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    details = {"teacher_test_details": DETAILS, "student_last_test_details": DETAILS | {"AP50": 0.55}}
    path.write_text(json.dumps(summary | {"metric": "AP"} | details))
