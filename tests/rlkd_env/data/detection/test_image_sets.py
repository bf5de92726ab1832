"""What every set of images with boxes does."""

from __future__ import annotations

from dataclasses import replace

import torch
from scenes import digits_source

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    BatchStream,
    Boxes,
    DetectionSet,
    MemoryDetectionSet,
    Share,
)
from rlkd_env.data.augmentation import Preprocessing
from rlkd_env.data.detection.annotations import Annotations, Objects


def flipped_set() -> MemoryDetectionSet:
    return digits_source(augmentation="flip").splits().teacher_train


def mirror(boxes: Boxes, position: int, width: int) -> list[list[float]]:
    corners = boxes.corners[position][boxes.classes[position] > 0].tolist()
    return [[width - right, top, width - left, bottom] for left, top, right, bottom in corners]


def test_boxes_are_mirrored_with_their_images() -> None:
    images = flipped_set()
    positions = torch.tensor([3, 0, 11, 5, 39, 20, 8, 9])
    plain, plain_boxes = images.take(positions), images.take_boxes(positions)
    seen, boxes = images.take(positions, view=2), images.take_boxes(positions, view=2)
    mirrored = [bool(torch.equal(view, image.flip(-1))) for view, image in zip(seen, plain, strict=True)]
    assert set(mirrored) == {True, False}
    for position, is_mirrored in enumerate(mirrored):
        is_there = boxes.classes[position] > 0
        if is_mirrored:
            assert boxes.corners[position][is_there].tolist() == mirror(plain_boxes, position, 64)
        else:
            assert torch.equal(seen[position], plain[position])
            assert torch.equal(boxes.corners[position], plain_boxes.corners[position])
    assert torch.equal(boxes.classes, plain_boxes.classes)


def test_only_training_images_are_mirrored_and_digits_only_when_asked() -> None:
    assert not digits_source().splits().train.is_random
    splits = digits_source(augmentation="flip").splits()
    assert splits.train.is_random
    assert not any(part.is_random for part in (splits.probe, splits.validation))


def test_batches_come_with_the_boxes_of_their_images() -> None:
    images = flipped_set()
    stream = BatchStream(images, 12, seed=1)
    for step in (0, 1, 4):
        batch = stream.batch(step)
        again = images.take_boxes(batch.indices, stream.view_seed(batch.view))
        assert torch.equal(batch.boxes.corners, again.corners)
        assert torch.equal(batch.boxes.classes, images.boxes.classes[batch.indices])
        pieces = [BatchStream(images, 12, 1, share=Share(index, 3)).batch(step) for index in range(3)]
        assert torch.equal(torch.cat([piece.boxes.corners for piece in pieces]), batch.boxes.corners)


def test_parts_of_a_set_keep_their_boxes() -> None:
    images = digits_source().splits().teacher_train
    positions = torch.tensor([7, 2, 30])
    part = images.subset(positions).to(torch.device("cpu"))
    assert isinstance(part, DetectionSet)
    assert torch.equal(part.boxes.corners, images.boxes.corners[positions])
    assert torch.equal(part.labels, images.labels[positions])
    found = part.ground_truth()
    assert [image["id"] for image in found["images"]] == [1, 2, 3]
    for number, position in enumerate(positions.tolist()):
        expected = images.boxes.classes[position]
        own = [row for row in found["annotations"] if row["image_id"] == number + 1]
        assert [row["category_id"] for row in own] == expected[expected > 0].tolist()
    assert found["categories"][3] == {"id": 4, "name": "3"}


def test_other_boxes_make_another_fingerprint() -> None:
    images = digits_source().splits().train
    moved = replace(images.boxes, corners=images.boxes.corners + 1.0)
    assert replace(images, boxes=moved).fingerprint() != images.fingerprint()
    assert replace(images).fingerprint() == images.fingerprint()


def test_a_set_may_have_no_box_at_all() -> None:
    annotations = Annotations.of_objects(torch.full((2, 2), 20), Objects.of_rows([]), ("cat",))
    images = MemoryDetectionSet.of(torch.zeros(2, 3, 20, 20, dtype=torch.uint8), annotations, Preprocessing(flip=True))
    assert images.labels.tolist() == [0, 0]
    assert images.take_boxes(torch.arange(2), view=0).corners.shape == (2, 0, 4)
    assert images.ground_truth()["annotations"] == []
