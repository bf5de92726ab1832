"""Boxes of a batch: padded, taken, mirrored, joined, and those that networks are trained on."""

from __future__ import annotations

import torch
from small_detection import boxes_of, some_boxes


def test_images_are_padded_to_as_many_boxes_as_the_fullest_has() -> None:
    boxes = some_boxes()
    assert len(boxes) == 3
    assert boxes.corners.shape == (3, 3, 4)
    assert boxes.classes.tolist() == [[1, 2, 3], [0, 0, 0], [2, 0, 0]]
    assert boxes.is_single.tolist() == [[True, False, True], [False] * 3, [True, False, False]]


def test_crowds_and_padding_are_not_trained_on() -> None:
    trained = some_boxes().trainable()
    assert [classes.tolist() for _, classes in trained] == [[1, 3], [], [2]]
    assert trained[0][0].tolist() == [[4, 4, 20, 28], [30, 10, 34, 12]]
    assert trained[1][0].shape == (0, 4)


def test_only_marked_images_are_mirrored_and_padding_stays() -> None:
    boxes = some_boxes()
    mirrored = boxes.mirrored(torch.tensor([True, True, False]), width=48)
    assert mirrored.corners[0, 0].tolist() == [28, 4, 44, 28]
    assert torch.equal(mirrored.corners[1:], boxes.corners[1:])
    twice = mirrored.mirrored(torch.tensor([True, True, False]), width=48)
    assert torch.equal(twice.corners, boxes.corners)


def test_boxes_are_taken_joined_and_hidden_by_their_images() -> None:
    boxes = some_boxes()
    taken = boxes.take(torch.tensor([2, 0]))
    assert taken.classes.tolist() == [[2, 0, 0], [1, 2, 3]]
    assert taken.is_crowd.tolist() == [[False] * 3, [False, True, False]]
    joined = taken.joined(boxes_of([(0, 0, 1, 1, 4)], []))
    assert joined.classes.tolist() == [[2, 0, 0, 4], [1, 2, 3, 0]]
    assert joined.corners[0, 3].tolist() == [0, 0, 1, 1]
    assert boxes.of_those(torch.tensor([False, True, True])).classes.tolist() == [[0] * 3, [0] * 3, [2, 0, 0]]
