"""COCO's average precision of a detector (Lin et al., arXiv 1405.0312), computed by pycocotools.

It is the precision at 101 recalls, averaged over the classes and over ten thresholds of overlap.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from torch import Tensor

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
"""The metrics in pycocotools' order. Small objects have an area below 32² pixels, large ones above 96²."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in an image: k boxes' left, top, right and bottom ``(k, 4)``, scores and classes from 1.

    The corners are in pixels of the image's file.
    """

    corners: Tensor
    scores: Tensor
    classes: Tensor


def average_precision(ground_truth: Mapping[str, Any], detections: Sequence[Detections]) -> dict[str, float]:
    """Measure how well detections match the real boxes, in [0, 1] by the :data:`NAMES` for which there are objects.

    For each image and class the 100 most confident detections count. Those inside a crowd of their class count neither
    for nor against the detector. The ground truth is a COCO dictionary of ``images``, ``annotations`` (with ``bbox``,
    ``area`` and ``iscrowd``) and ``categories``; the detections are in its images' order, with its ids as classes.
    """
    # Imported here because only detection needs it.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = ground_truth["images"]
    if len(images) != len(detections):
        raise ValueError(f"there are detections of {len(detections)} images, but {len(images)} images")
    # Numbered from 1, as pycocotools takes a match with id 0 for none; copied, as it writes into annotations.
    real = [{**annotation, "id": number} for number, annotation in enumerate(ground_truth["annotations"], start=1)]
    entries = [entry for image, found in zip(images, detections, strict=True) for entry in _entries(image, found)]
    detected = [{**entry, "id": number} for number, entry in enumerate(entries, start=1)]
    with redirect_stdout(io.StringIO()):  # pycocotools prints
        indices = []
        for annotations in (real, detected):
            index = COCO()
            index.dataset = {**ground_truth, "annotations": annotations}
            index.createIndex()
            indices.append(index)
        evaluation = COCOeval(*indices, iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # The metrics are -1 where there are no objects.
    return {name: float(value) for name, value in zip(NAMES, evaluation.stats, strict=False) if value >= 0}


def _entries(image: Mapping[str, Any], detections: Detections) -> list[dict[str, Any]]:
    """Return an image's detections as COCO annotations without ids."""
    rows = zip(
        detections.corners.double().tolist(), detections.scores.tolist(), detections.classes.tolist(), strict=True
    )
    return [
        {
            "image_id": image["id"],
            "category_id": category,
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "score": score,
            "iscrowd": 0,
        }
        for (left, top, right, bottom), score, category in rows
    ]
