"""COCO's figures: by hand, against another implementation, and where there is nothing to find or nothing found."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from rlkd_env.tasks.detection.average_precision import NAMES, Detections, average_precision

NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
SQUARE = (10.0, 10.0, 50.0, 50.0)


def real(*boxes: tuple[int, tuple[float, ...], int, int], images: int = 1, classes: int = 2) -> dict[str, Any]:
    """COCO's dictionary of boxes: image from 1, corners, class, crowd."""
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "iscrowd": crowd}
        | {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
        for number, (image, (left, top, right, bottom), category, crowd) in enumerate(boxes)
    ]
    return {
        "images": [{"id": number} for number in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": number} for number in range(1, classes + 1)],
    }


def found(*boxes: tuple[tuple[float, ...], float, int]) -> Detections:
    """Detections of corners, score, class."""
    corners, scores, classes = zip(*boxes, strict=True)
    return Detections(torch.tensor(corners), torch.tensor(scores), torch.tensor(classes))


def test_a_perfect_detector_has_one() -> None:
    truth = real((1, (0, 0, 20, 20), 1, 0), (1, (30, 30, 70, 70), 2, 0), (2, (5, 5, 120, 125), 1, 0), images=2)
    before = copy.deepcopy(truth)
    first = found(((0, 0, 20, 20), 0.9, 1), ((30, 30, 70, 70), 0.8, 2))
    assert average_precision(truth, [first, found(((5, 5, 120, 125), 0.7, 1))]) == pytest.approx(
        dict.fromkeys(NAMES, 1.0)
    )
    assert truth == before


def test_boxes_by_hand() -> None:
    """Moving a square of 40 pixels by 4 leaves an overlap of 36 / 44 = 0.818: a hit at the seven thresholds to 0.8.

    A second square is missed. So at these thresholds precision is 1 up to a recall of one half, that is at 51 of 101
    recalls.
    """
    truth = real((1, SQUARE, 1, 0), (1, (100, 100, 140, 140), 1, 0))
    figures = average_precision(truth, [found(((14, 10, 54, 50), 0.9, 1))])
    share = 51 / 101
    expected = {"AP": 0.7 * share, "AP50": share, "AP75": share, "AP_medium": 0.7 * share}
    assert figures == pytest.approx(expected)


def test_what_was_surer_but_wrong_costs_precision() -> None:
    """Ranked behind one wrong box the hit has precision 1/2, ranked before it 1."""
    truth = real((1, SQUARE, 1, 0))
    wrong = (200.0, 200.0, 240.0, 240.0)
    assert average_precision(truth, [found((SQUARE, 0.9, 1), (wrong, 0.8, 1))])["AP"] == pytest.approx(1)
    assert average_precision(truth, [found((SQUARE, 0.8, 1), (wrong, 0.9, 1))])["AP"] == pytest.approx(0.5)
    assert average_precision(truth, [found((SQUARE, 0.8, 2))])["AP"] == 0  # another class


def test_nothing_found_is_zero_and_nothing_there_has_no_figure() -> None:
    truth = real((1, SQUARE, 1, 0), images=2)
    assert average_precision(truth, [NOTHING, NOTHING]) == {"AP": 0, "AP50": 0, "AP75": 0, "AP_medium": 0}
    assert average_precision(real(images=2), [NOTHING, found((SQUARE, 0.9, 1))]) == {}
    assert average_precision(real(images=0), []) == {}


def test_detections_in_images_without_objects_are_wrong() -> None:
    truth = real((1, SQUARE, 1, 0), images=2)
    assert average_precision(truth, [found((SQUARE, 0.8, 1)), found((SQUARE, 0.9, 1))])["AP"] == pytest.approx(0.5)


def test_a_crowd_is_neither_right_nor_wrong() -> None:
    crowd = (100.0, 100.0, 200.0, 200.0)
    inside = ((110.0, 110.0, 130.0, 130.0), 0.95, 1), ((150.0, 150.0, 180.0, 180.0), 0.94, 1)
    truth = real((1, SQUARE, 1, 0), (1, crowd, 1, 1))
    assert average_precision(truth, [found((SQUARE, 0.9, 1), *inside)])["AP"] == pytest.approx(1)
    assert average_precision(truth, [found((SQUARE, 0.9, 1))])["AP"] == pytest.approx(1)
    single = real((1, SQUARE, 1, 0), (1, crowd, 1, 0))
    assert average_precision(single, [found((SQUARE, 0.9, 1), *inside)])["AP"] < 0.3
    assert average_precision(real((1, crowd, 1, 1)), [found(*inside)]) == {}


def test_the_number_of_images_must_fit() -> None:
    with pytest.raises(ValueError, match="detections of 1 images, but 2 images"):
        average_precision(real(images=2), [NOTHING])


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    average_precision(real((1, SQUARE, 1, 0)), [found((SQUARE, 0.9, 1))])
    assert capfd.readouterr() == ("", "")


def random_scenes(images: int) -> tuple[dict[str, Any], list[Detections]]:
    """Boxes of all sizes, some crowds, and detections near them, beside them and of other classes."""
    generator = torch.Generator().manual_seed(0)
    boxes, detections = [], []
    for image in range(1, images + 1):
        corners = 300 * torch.rand(12, 2, generator=generator)
        corners = torch.cat([corners, corners + 4 + 150 * torch.rand(12, 2, generator=generator) ** 2], dim=1)
        classes = torch.randint(1, 4, (12,), generator=generator)
        crowds = (torch.rand(12, generator=generator) < 0.1).int()
        boxes += [
            (image, tuple(box), category, crowd)
            for box, category, crowd in zip(corners.tolist(), classes.tolist(), crowds.tolist(), strict=True)
        ]
        noise = 3 * torch.randn(12, 4, generator=generator)
        noise[:, 2:] = noise[:, :2]
        confused = torch.rand(12, generator=generator) < 0.2
        detections.append(
            Detections(corners + noise, torch.rand(12, generator=generator), torch.where(confused, 1, classes))
        )
    return real(*boxes, images=images, classes=3), detections


def test_another_implementation_gives_the_same() -> None:
    faster = pytest.importorskip("faster_coco_eval")
    truth, detections = random_scenes(20)
    given = average_precision(truth, detections)
    assert list(given) == list(NAMES)
    assert 0.1 < given["AP"] < 0.9
    entries = [
        {"image_id": image, "category_id": category, "score": score} | {"bbox": [left, top, right - left, bottom - top]}
        for image, one in enumerate(detections, start=1)
        for (left, top, right, bottom), score, category in zip(
            one.corners.tolist(), one.scores.tolist(), one.classes.tolist(), strict=True
        )
    ]
    for number, annotation in enumerate(truth["annotations"], start=1):
        annotation["id"] = number
    index = faster.COCO(truth)
    evaluation = faster.COCOeval_faster(index, index.loadRes(entries), iouType="bbox")
    evaluation.run()
    assert [given[name] for name in NAMES] == pytest.approx(list(evaluation.stats[:6]), abs=1e-6)
