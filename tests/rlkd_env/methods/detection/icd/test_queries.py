"""Queries of instance-conditional distillation against their definition, and the boxes that are made up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_detection import Box, boxes_of, some_boxes

from rlkd_env.data.boxes import Boxes
from rlkd_env.methods.detection.icd.queries import Queries, sample_queries, scale_bins

HEIGHT, WIDTH = 32, 48


def sampled(boxes: Boxes, seed: int = 0) -> Queries:
    torch.manual_seed(seed)
    return sample_queries(boxes, HEIGHT, WIDTH)


def vector_by_definition(queries: Queries, image: int, at: int, num_classes: int, width: int) -> list[float]:
    """[class one-hot | sin, cos of x | sin, cos of y | bin of the width | bin of the height]."""
    vector = [float(queries.classes[image, at] == c) for c in range(num_classes)]
    for position in queries.centres[image, at].tolist():
        waves = [10000.0 ** (2 * i / (width // 2)) for i in range(width // 4)]
        vector += [math.sin(2 * math.pi * position / wave) for wave in waves]
        vector += [math.cos(2 * math.pi * position / wave) for wave in waves]
    for side in queries.sizes[image, at].tolist():
        bin_of_side = sum(side >= limit for limit in (0.08, 0.16, 0.32, 0.64))
        vector += [float(bin_of_side == number) for number in range(5)]
    return vector


def test_a_query_is_class_place_and_scale() -> None:
    queries = sampled(some_boxes())
    vectors = queries.vectors(num_classes=3, width=16)
    assert vectors.shape == (3, 12, 3 + 16 + 10)
    for image, at in queries.is_used.nonzero().tolist():
        expected = vector_by_definition(queries, image, at, 3, 16)
        np.testing.assert_allclose(vectors[image, at], expected, rtol=1e-9, atol=1e-12)


def test_the_bins_of_scale_are_the_published_pixels_at_a_side_of_800() -> None:
    sides = torch.tensor([1.0, 63.0, 65.0, 127.0, 129.0, 255.0, 257.0, 511.0, 513.0, 800.0])
    assert scale_bins(sides / 800.0).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_real_boxes_come_first_without_crowds() -> None:
    queries = sampled(some_boxes())
    assert queries.num_real == 2
    assert queries.is_real.sum(dim=1).tolist() == [2, 0, 1]
    assert not queries.is_real[:, 2:].any()
    assert queries.classes[0, :2].tolist() == [0, 2]
    pixels = queries.corners * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    torch.testing.assert_close(pixels[0, :2], torch.tensor([[4.0, 4, 20, 28], [30, 10, 34, 12]], dtype=torch.float64))
    torch.testing.assert_close(pixels[2, 0], torch.tensor([10.0, 2, 40, 20], dtype=torch.float64))


def test_every_real_box_brings_five_made_up_ones() -> None:
    queries = sampled(some_boxes())
    assert queries.is_used.sum(dim=1).tolist() == [12, 0, 6]
    assert (queries.is_used | ~queries.is_real).all()


def test_made_up_boxes_have_class_and_size_of_real_ones_and_places_all_over() -> None:
    """Cut by the edges they are smaller; half of the widths and heights are not cut, as the real boxes are small."""
    real: list[Box] = [(4, 4, 8, 8, 1), (20, 20, 22, 26, 3)]
    queries = sampled(boxes_of(*([real] * 20)))
    fake = queries.is_used & ~queries.is_real
    assert int(fake.sum()) == 20 * 10
    kinds = {0: (4 / WIDTH, 4 / HEIGHT), 2: (2 / WIDTH, 6 / HEIGHT)}
    uncut = 0
    for kind, (width, height) in zip(queries.classes[fake].tolist(), queries.sizes[fake].tolist(), strict=True):
        assert width <= kinds[kind][0] + 1e-9
        assert height <= kinds[kind][1] + 1e-9
        uncut += width > kinds[kind][0] - 1e-9 and height > kinds[kind][1] - 1e-9
    assert uncut > 100
    assert {0, 2} == set(queries.classes[fake].tolist())
    middles = (queries.corners[fake][:, :2] + queries.corners[fake][:, 2:]) / 2
    for axis in range(2):
        quarters = torch.histc(middles[:, axis], bins=4, min=0.0, max=1.0)
        assert (quarters > 20).all()  # 50 are expected in each, with a deviation of 6
    assert ((queries.corners >= 0) & (queries.corners <= 1)).all()


def test_points_lie_within_three_tenths_of_the_size_around_the_centre() -> None:
    queries = sampled(boxes_of(*([[(4, 4, 24, 14, 1)]] * 200)))
    centres = (queries.corners[..., :2] + queries.corners[..., 2:]) / 2
    share = ((queries.centres - centres) / queries.sizes)[queries.is_used]
    assert share.abs().max() <= 0.3
    assert share.min() < -0.28
    assert share.max() > 0.28
    assert share.mean().abs() < 0.03  # a uniform's deviation is 0.17, that of the mean of 2,400 is 0.0035


def test_offsets_lead_from_the_point_to_the_sides() -> None:
    queries = sampled(some_boxes())
    points = queries.centres
    sides = torch.cat([points - queries.offsets[..., :2], points + queries.offsets[..., 2:]], dim=-1)
    torch.testing.assert_close(sides, queries.corners)
    assert (queries.offsets[queries.is_used] > 0).all()


def test_the_global_generator_makes_the_draws() -> None:
    first, again, other = sampled(some_boxes()), sampled(some_boxes()), sampled(some_boxes(), seed=1)
    assert torch.equal(first.centres, again.centres)
    assert torch.equal(first.corners, again.corners)
    assert not torch.equal(first.centres[first.is_used], other.centres[first.is_used])


@pytest.mark.parametrize(("boxes", "asked"), [(40, 240), (80, 300), (300, 300), (310, 310)])
def test_made_up_boxes_make_room_where_there_are_many(boxes: int, asked: int) -> None:
    queries = sampled(boxes_of([(4, 4, 24, 14, 1)] * boxes, [(4, 4, 24, 14, 2)]))
    assert queries.is_used.sum(dim=1).tolist() == [asked, 6]
    assert queries.is_real.sum(dim=1).tolist() == [boxes, 1]


def test_padding_of_the_data_set_makes_no_queries() -> None:
    """Padding goes at the end of each image's row; 90 places more, as in a set whose fullest image has many boxes."""
    boxes = some_boxes()
    wide = boxes_of([(0, 0, 8, 8, 1)] * 93, *([[]] * 3)).take(torch.tensor([1, 2, 3]))
    wide.corners[:, :3], wide.classes[:, :3], wide.is_crowd[:, :3] = boxes.corners, boxes.classes, boxes.is_crowd
    expected, found = sampled(boxes), sampled(wide)
    torch.testing.assert_close(found.corners, expected.corners)
    assert torch.equal(found.is_used, expected.is_used)


@pytest.mark.parametrize(
    "boxes",
    [
        boxes_of([], []),
        boxes_of([(0, 0, 48, 32, 2)], [], crowds=[(0, 0)]),
        boxes_of([(3, 3, 4, 4, 1)], [(47, 31, 48, 32, 1)]),
        boxes_of([(-9, -9, 70, 60, 1)], [(50, 40, 60, 50, 1)]),
    ],
    ids=["none", "crowds alone", "one pixel", "outside"],
)
def test_odd_boxes_give_finite_queries(boxes: Boxes) -> None:
    queries = sampled(boxes)
    assert queries.vectors(3, 16).isfinite().all()
    assert (queries.sizes >= torch.tensor([1 / WIDTH, 1 / HEIGHT]) - 1e-9).all()
    assert ((queries.corners >= 0) & (queries.corners <= 1)).all()
    assert queries.is_used.sum(dim=1).tolist() == (6 * boxes.is_single.sum(dim=1)).tolist()
