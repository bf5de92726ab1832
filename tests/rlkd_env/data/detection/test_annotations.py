"""Annotated objects and their ground truth."""

from __future__ import annotations

import numpy as np
import torch

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    MemoryDetectionSet,
)
from rlkd_env.data.augmentation import Preprocessing
from rlkd_env.data.detection.annotations import Annotations, Objects
from rlkd_env.data.splits import stratified


def three_images() -> MemoryDetectionSet:
    """Of files of 20 by 10, 10 by 40 and 5 by 5 pixels, shown in 20 by 20."""
    sizes = torch.tensor([[20, 10], [10, 40], [5, 5]])
    rows = [
        (1, (0.0, 0.0, 8.0, 4.0), 2, False, 32.0),
        (0, (2.0, 1.0, 4.0, 3.0), 1, False, 3.5),
        (1, (1.0, 4.0, 2.0, 8.0), 1, False, 4.0),
        (1, (0.0, 0.0, 10.0, 40.0), 1, True, 400.0),
    ]
    annotations = Annotations.of_objects(sizes, Objects.of_rows(rows), ("cat", "dog"))
    return MemoryDetectionSet.of(torch.zeros(3, 3, 20, 20, dtype=torch.uint8), annotations, Preprocessing())


def test_boxes_are_scaled_as_their_images_are() -> None:
    images = three_images()
    assert images.boxes.corners.shape == (3, 3, 4)
    assert images.boxes.corners[0, 0].tolist() == [2, 1, 4, 3]
    assert images.boxes.corners[1, :2].tolist() == [[0, 0, 4, 2], [0.5, 2, 1, 4]]
    assert images.boxes.classes.tolist() == [[1, 0, 0], [2, 1, 1], [0, 0, 0]]
    for position in range(2):
        there = images.boxes.classes[position] > 0
        found = images.in_files(position, images.boxes.corners[position][there])
        torch.testing.assert_close(found, images.annotations.boxes.corners[position][there])
    # What a network sees in the padding is at the border of the file.
    assert images.in_files(0, torch.tensor([[-1.0, 2.0, 30.0, 19.0]])).tolist() == [[0.0, 2.0, 20.0, 10.0]]
    assert images.in_files(2, torch.tensor([[4.0, 8.0, 16.0, 20.0]])).tolist() == [[1.0, 2.0, 4.0, 5.0]]


def test_an_image_is_of_the_class_of_its_largest_object_without_crowds() -> None:
    images = three_images()
    assert images.labels.tolist() == [1, 2, 0]
    part, rest = stratified(np.arange(3), images.labels.numpy(), 2, 0, "test")
    assert sorted([*part, *rest]) == [0, 1, 2]
    assert [len(classes) for _, classes in images.boxes.trainable()] == [1, 2, 0]


def test_the_ground_truth_is_in_pixels_of_the_files() -> None:
    found = three_images().ground_truth()
    assert found["images"][1] == {"id": 2, "width": 10, "height": 40}
    first, second, *_, crowd = found["annotations"]
    expected = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2.0, 1.0, 2.0, 2.0], "area": 3.5, "iscrowd": 0}
    assert first == expected
    assert (second["image_id"], second["bbox"]) == (2, [0.0, 0.0, 8.0, 4.0])
    assert (crowd["iscrowd"], crowd["bbox"]) == (1, [0.0, 0.0, 10.0, 40.0])
