"""The task of detection: proposals drawn and classified as torchvision does it, a temperature for each."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import fastrcnn_loss

from rlkd_env.data import Batch, Boxes
from rlkd_env.errors import UsageError
from rlkd_env.models import create_model
from rlkd_env.models.engine import Engine
from rlkd_env.tasks.detection.proposals import Proposals, propose, sample_regions
from rlkd_env.tasks.detection.task import Detection

SIZE = 64
PROPOSALS = 16


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def boxes() -> Boxes:
    """Of three images: two objects, one and a crowd, none."""
    return Boxes.of_images(
        [
            (torch.tensor([[5.0, 5, 30, 30], [30, 40, 60, 63]]), torch.tensor([1, 3]), torch.tensor([False, False])),
            (torch.tensor([[20.0, 20, 50, 50], [0, 0, 64, 30]]), torch.tensor([2, 1]), torch.tensor([False, True])),
            (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)),
        ]
    )


@pytest.fixture
def detector() -> FasterRCNN:
    torch.manual_seed(0)
    network: Any = create_model("fasterrcnn/cnn4", 3, (1, SIZE, SIZE))
    return network.train()


@pytest.fixture
def batch(images: Tensor, boxes: Boxes) -> Batch:
    return Batch(images, torch.tensor([3, 2, 0]), torch.tensor([4, 0, 7]), boxes=boxes)


def targets_of(boxes: Boxes) -> list[dict[str, Tensor]]:
    return [{"boxes": corners, "labels": classes} for corners, classes in boxes.trainable()]


def test_proposals_and_their_loss_are_torchvisions(detector: FasterRCNN, images: Tensor, boxes: Boxes) -> None:
    maps = detector.backbone(images)
    torch.manual_seed(3)
    corners, losses = detector.rpn(ImageList(images, [(SIZE, SIZE)] * 3), maps, targets_of(boxes))
    torch.manual_seed(3)
    ours = propose(detector, Engine(torch.device("cpu")), images, maps, boxes)
    assert ours.loss is not None
    torch.testing.assert_close(ours.loss, losses["loss_objectness"] + losses["loss_rpn_box_reg"])
    for left, right, objectness in zip(ours.corners, corners, ours.objectness, strict=True):
        assert torch.equal(left, right)
        assert len(objectness) == len(left)
        assert objectness.diff().max() <= 0
        assert objectness.min() >= 0
        assert objectness.max() <= 1


def test_the_mean_over_instances_is_torchvisions_loss(detector: FasterRCNN, batch: Batch) -> None:
    task, teacher = Detection(proposals=PROPOSALS), copy.deepcopy(detector).eval()
    torch.manual_seed(5)
    outputs = task.forward(detector, teacher, batch, with_features=True)
    assert outputs.regions is not None
    assert outputs.student_features is not None
    assert batch.boxes is not None
    head, corners = detector.roi_heads, list(outputs.regions.corners.split(PROPOSALS))
    maps = detector.backbone(batch.images)
    pooled = head.box_head(head.box_roi_pool(maps, corners, [(SIZE, SIZE)] * 3))
    logits, deltas = head.box_predictor(pooled)
    torch.testing.assert_close(logits, outputs.student_logits)
    torch.testing.assert_close(pooled, outputs.student_features.pooled)
    labels, matched = _matched(outputs.regions.corners, batch.boxes, PROPOSALS)
    assert torch.equal(labels, outputs.labels)
    classes, regression = fastrcnn_loss(
        logits, deltas, [labels], head.box_coder.encode([matched], [torch.cat(corners)])
    )
    torch.manual_seed(5)
    proposed = detector.rpn(ImageList(batch.images, [(SIZE, SIZE)] * 3), maps, targets_of(batch.boxes))[1]
    torch.testing.assert_close(outputs.task_loss.mean(), classes + regression + sum(proposed.values()))
    torch.testing.assert_close(outputs.student_cross_entropy.mean(), classes.detach())


def test_the_loss_of_bins_is_added_to_that_of_their_expected_boxes(batch: Batch) -> None:
    torch.manual_seed(0)
    network: Any = create_model("fasterrcnn/cnn4", 3, (1, SIZE, SIZE), box_bins=8).train()
    task = Detection(proposals=PROPOSALS)
    torch.manual_seed(5)
    outputs = task.forward(network, copy.deepcopy(network).eval(), batch)
    boxes = outputs.boxes
    assert boxes is not None
    assert boxes.student_edges is not None
    assert boxes.student_edges.shape == boxes.teacher_edges.shape == (3 * PROPOSALS, 4, 9)
    codes = torch.linspace(-5.0, 10.0, 9)
    torch.testing.assert_close(boxes.student, boxes.student_edges.softmax(dim=-1) @ codes)
    torch.manual_seed(5)
    maps = network.backbone(batch.images)
    proposed = network.rpn(ImageList(batch.images, [(SIZE, SIZE)] * 3), maps, targets_of(batch.boxes))[1]
    is_object = outputs.labels > 0
    own, real = boxes.student[is_object], boxes.targets[is_object]
    expected = torch.nn.functional.smooth_l1_loss(own, real, beta=1 / 9, reduction="none").sum(dim=-1)
    place = (real + 5.0) / 15.0 * 8
    weights = (1.0 - (torch.arange(9) - place.unsqueeze(-1)).abs()).clamp(min=0.0)
    bins = -(weights * boxes.student_edges[is_object].log_softmax(dim=-1)).sum(dim=-1).mean(dim=-1)
    expected = (expected + 0.25 * bins).sum() / len(outputs.labels) + sum(proposed.values())
    torch.testing.assert_close(outputs.further_loss.mean(), expected)


def _matched(corners: Tensor, boxes: Boxes, count: int) -> tuple[Tensor, Tensor]:
    """Match every proposal with the real box of the most overlap, one after the other and by hand."""
    labels, matched = [], []
    for number, proposal in enumerate(corners):
        real, classes = boxes.trainable()[number // count]
        overlaps = torch.tensor([_overlap(proposal, box) for box in real])
        best = int(overlaps.argmax()) if len(real) else 0
        is_object = len(real) > 0 and overlaps[best] >= 0.5
        labels.append(int(classes[best]) if is_object else 0)
        matched.append(real[best] if len(real) else proposal)
    return torch.tensor(labels), torch.stack(matched)


def _overlap(first: Tensor, second: Tensor) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(float(width), 0.0) * max(float(height), 0.0)
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (first, second)]
    return shared / (sum(areas) - shared)


def test_every_image_has_equally_many_instances_and_background_by_the_detectors_ratio(
    detector: FasterRCNN, batch: Batch
) -> None:
    task = Detection(proposals=PROPOSALS)
    outputs = task.forward(detector, copy.deepcopy(detector).eval(), batch)
    regions = outputs.regions
    assert regions is not None
    assert outputs.indices is not None
    assert regions.images.tolist() == [0] * PROPOSALS + [1] * PROPOSALS + [2] * PROPOSALS
    assert outputs.indices.tolist() == [4] * PROPOSALS + [0] * PROPOSALS + [7] * PROPOSALS
    per_image = outputs.labels.view(3, PROPOSALS)
    assert ((per_image > 0).sum(dim=1) <= PROPOSALS * detector.roi_heads.fg_bg_sampler.positive_fraction).all()
    assert (per_image[0] > 0).any()
    assert (per_image[1] > 0).any()
    assert (per_image[2] == 0).all()
    assert 1 not in per_image[1].tolist()  # the crowd is no object to train on
    assert torch.equal(outputs.labels > 0, regions.overlap >= 0.5)
    assert (regions.overlap.view(3, -1)[2] == 0).all()
    assert outputs.student_logits.shape == outputs.teacher_logits.shape == (3 * PROPOSALS, 4)
    assert outputs.student_logits.requires_grad
    assert not outputs.teacher_logits.requires_grad


def test_teacher_and_student_classify_the_same_proposals(detector: FasterRCNN, batch: Batch) -> None:
    task = Detection(proposals=PROPOSALS)
    outputs = task.forward(detector.eval(), detector, batch)
    torch.testing.assert_close(outputs.teacher_logits, outputs.student_logits.detach())


def test_few_proposals_are_drawn_again_and_none_give_the_whole_image(detector: FasterRCNN, boxes: Boxes) -> None:
    one = torch.tensor([[10.0, 10, 20, 20]])
    proposals = Proposals([one, one, torch.zeros(0, 4)], [torch.ones(1) / 2] * 2 + [torch.zeros(0)], None)
    sampled = sample_regions(detector, proposals, boxes, 8, (SIZE, SIZE))
    assert sampled.regions.corners.shape == (24, 4)
    assert sampled.regions.corners[-1].tolist() == [0, 0, SIZE, SIZE]
    assert sampled.labels.view(3, 8)[0].unique().tolist() == [0, 1, 3]
    first = sampled.regions.objectness.view(3, 8)[0]
    assert set(first.tolist()) == {0.5, 1.0}  # a real box is an object for sure


def test_detections_are_torchvisions(detector: FasterRCNN, images: Tensor) -> None:
    detector.eval()
    task = Detection()
    with torch.no_grad():
        expected = detector(list(images))
        found = task._detect(detector, images, task._maps(detector, images))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.corners, theirs["boxes"])
        torch.testing.assert_close(ours.scores, theirs["scores"])
        assert torch.equal(ours.classes, theirs["labels"])


def test_weights_that_are_no_numbers_give_logits_that_are_none(detector: FasterRCNN, batch: Batch) -> None:
    teacher = copy.deepcopy(detector).eval()
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.fill_(torch.nan)
    outputs = Detection(proposals=4).forward(detector, teacher, batch)
    assert outputs.student_logits.shape == (12, 4)
    assert not outputs.student_logits.isfinite().any()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1 proposal"):
        Detection(proposals=0)
