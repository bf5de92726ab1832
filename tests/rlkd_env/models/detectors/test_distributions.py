"""Boxes as distributions over bins: their code, their expectation, their loss, and detectors that have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from small_detectors import GREY, TARGETS, detector
from torchvision.ops import box_iou

from rlkd_env.errors import UsageError
from rlkd_env.models.detectors.distributions import (
    FIRST,
    LAST,
    SCALE,
    DistributionPredictor,
    EdgeCoder,
    distribution_focal_loss,
)
from rlkd_env.models.storage import load_network, save_network

BINS = 16


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    start, size = torch.rand(2, count, 2, generator=generator, dtype=torch.float64)
    return torch.cat([40 * start, 40 * start + 4 + 30 * size], dim=1)


def test_a_code_is_how_far_an_edge_lies_outside_in_sizes_of_the_region() -> None:
    region, box = torch.tensor([[10.0, 20.0, 30.0, 60.0]]), torch.tensor([[8.0, 30.0, 35.0, 58.0]])
    (code,) = EdgeCoder().encode([box], [region])
    torch.testing.assert_close(code / SCALE, torch.tensor([[2 / 20, -10 / 40, 5 / 20, -2 / 40]]))


def test_decoding_undoes_encoding_for_every_class_and_image() -> None:
    regions, real = random_boxes(7, 0), random_boxes(7, 1)
    coder = EdgeCoder()
    codes = torch.cat(coder.encode([real[:3], real[3:]], [regions[:3], regions[3:]]))
    both = torch.cat([codes, codes + SCALE], dim=1)
    found = coder.decode(both, [regions[:3], regions[3:]])
    assert found.shape == (7, 2, 4)
    torch.testing.assert_close(found[:, 0], real)
    width, height = (regions[:, 2:] - regions[:, :2]).unbind(dim=1)
    grown = torch.stack([-width, -height, width, height], dim=1)
    torch.testing.assert_close(found[:, 1], real + grown)
    assert coder.decode(codes[:0], [regions[:0]]).shape == (0, 1, 4)


def test_the_bins_reach_every_edge_of_a_box_that_overlaps_its_region_by_a_half() -> None:
    regions, real = random_boxes(3000, 2), random_boxes(3000, 3)
    matched = box_iou(regions, real) >= 0.5
    first, second = matched.nonzero().unbind(dim=1)
    (codes,) = EdgeCoder().encode([real[second]], [regions[first]])
    assert len(codes) > 1000
    assert codes.min() >= FIRST
    assert codes.max() <= LAST
    assert codes.min() < 0.8 * FIRST, "the bins are no wider than need be"
    assert codes.max() > 0.7 * LAST


def test_an_edges_code_is_the_expectation_over_the_bins_and_the_same_for_all_classes() -> None:
    torch.manual_seed(0)
    predictor = DistributionPredictor(5, 3, BINS).double()
    features = torch.randn(6, 5, dtype=torch.float64)
    logits, deltas = predictor(features)
    edges = features.numpy() @ predictor.bbox_pred.weight.detach().numpy().T + predictor.bbox_pred.bias.detach().numpy()
    expected = softmax(edges.reshape(6, 4, BINS + 1), axis=-1) @ np.linspace(-5.0, 10.0, BINS + 1)
    assert logits.shape == (6, 3)
    for number in range(3):
        np.testing.assert_allclose(deltas.detach()[:, 4 * number : 4 * number + 4], expected, rtol=1e-6)


def test_the_loss_of_bins_is_the_cross_entropy_with_the_two_around_the_code() -> None:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randn(5, 4, BINS + 1, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = FIRST + (LAST - FIRST) * torch.rand(5, 4, generator=generator, dtype=torch.float64)
    targets[0] = torch.tensor([FIRST, LAST, FIRST - 3.0, LAST + 100.0])
    loss = distribution_focal_loss(edges, targets)
    for (row, edge), code in np.ndenumerate(targets.numpy()):
        place = np.clip((code - FIRST) / (LAST - FIRST) * BINS, 0, BINS)
        weights = np.maximum(0.0, 1.0 - np.abs(np.arange(BINS + 1) - place))
        expected = -(weights * log_softmax(edges[row, edge].detach().numpy())).sum()
        assert loss[row, edge].item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda given: distribution_focal_loss(given, targets), edges)


def test_a_detector_with_bins_trains_and_detects_as_torchvisions_do(tmp_path: Path) -> None:
    network = detector(box_bins=8)
    images = torch.rand(2, *GREY, generator=torch.Generator().manual_seed(0))
    losses = network.train()(list(images), TARGETS)
    sum(losses.values()).backward()
    assert network.roi_heads.box_predictor.bbox_pred.weight.grad.abs().sum() > 0
    found = network.eval()(images)
    assert {key for image in found for key in image} == {"boxes", "labels", "scores"}
    options = {"fpn_channels": 16, "head_width": 16, "roi_size": 3, "box_bins": 8}
    save_network(tmp_path / "d.safetensors", network.state_dict(), "fasterrcnn/cnn4", 3, GREY, options)
    again = load_network(tmp_path / "d.safetensors", 3, GREY)
    for image, other in zip(found, again(images), strict=True):
        assert torch.equal(image["boxes"], other["boxes"])


@pytest.mark.parametrize("bins", [0, -1, 2.5, True])
def test_a_wrong_number_of_bins_is_refused(bins: float) -> None:
    with pytest.raises(UsageError, match="'box_bins' of a detector is a whole number above 0"):
        detector(box_bins=bins)
