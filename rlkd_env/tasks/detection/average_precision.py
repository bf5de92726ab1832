"""COCO's average precision of a detector, by pycocotools.

Lin et al. 2014, arXiv 1405.0312: precision at 101 recalls, averaged over the classes and over ten thresholds of
overlap.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from torch import Tensor

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
"""In pycocotools' order. Small objects have an area below 32² pixels, large ones above 96²."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in an image.

    Attributes:
        corners: ``(k, 4)`` left, top, right and bottom in pixels of the image's file.
        scores: ``(k,)`` confidence, the higher the surer.
        classes: ``(k,)`` integer classes from 1.
    """

    corners: Tensor
    scores: Tensor
    classes: Tensor


def average_precision(ground_truth: Mapping[str, Any], detections: Sequence[Detections]) -> dict[str, float]:
    """Return how well detections match the real boxes.

    Of each image the 100 surest detections of a class count. Those that lie in a crowd of their class count neither for
    nor against the detector.

    Args:
        ground_truth: a COCO dictionary of ``images``, ``annotations`` (with ``bbox``, ``area`` and ``iscrowd``) and
            ``categories``; left as it is.
        detections: of every image in the dictionary's order, with the categories' ids as classes.

    Returns:
        Shares from 0 to 1 by the names :data:`NAMES`, without those of which there are no objects.

    Raises:
        ValueError: if there are not as many detections as images.
    """
    # Imported here because only detection needs it.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = ground_truth["images"]
    if len(images) != len(detections):
        raise ValueError(f"there are detections of {len(detections)} images, but {len(images)} images")
    # Numbered from 1, as pycocotools takes a match with number 0 for none; copied, as it writes into annotations.
    real = [{**annotation, "id": number} for number, annotation in enumerate(ground_truth["annotations"], start=1)]
    found = [
        {**entry, "id": number}
        for number, entry in enumerate(
            (entry for image, of_image in zip(images, detections, strict=True) for entry in _entries(image, of_image)),
            start=1,
        )
    ]
    with redirect_stdout(io.StringIO()):  # pycocotools prints
        indices = []
        for annotations in (real, found):
            index = COCO()
            index.dataset = {**ground_truth, "annotations": annotations}
            index.createIndex()
            indices.append(index)
        evaluation = COCOeval(*indices, iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # It says -1 where there are no objects.
    return {name: float(value) for name, value in zip(NAMES, evaluation.stats, strict=False) if value >= 0}


def _entries(image: Mapping[str, Any], detections: Detections) -> list[dict[str, Any]]:
    """Return an image's detections as COCO annotations without numbers."""
    entries = []
    for (left, top, right, bottom), score, category in zip(
        detections.corners.double().tolist(), detections.scores.tolist(), detections.classes.tolist(), strict=True
    ):
        width, height = right - left, bottom - top
        entries.append(
            {
                "image_id": image["id"],
                "category_id": category,
                "bbox": [left, top, width, height],
                "area": width * height,
                "score": score,
                "iscrowd": 0,
            }
        )
    return entries
