"""FGD's masks, attention and four terms against their definitions in loops over positions and channels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_detection import boxes_of, detection_outputs, pair_with_maps, random_maps, some_boxes
from small_networks import frozen_teacher, pair_of
from torch import nn

from rlkd_env.errors import UsageError
from rlkd_env.methods import FGD, create_method
from rlkd_env.methods.detection.fgd import object_masks


def test_the_smallest_box_at_a_position_counts_and_crowds_are_background() -> None:
    objects, background = object_masks(some_boxes(), (32, 48), (4, 6))
    expected = np.zeros((4, 6))  # a crowd fills the image
    expected[0:4, 0:4] = 1 / (5 * 4)  # from (4, 4) to (20, 28): columns 0 to 3, rows 0 to 4
    expected[1:3, 3:6] = 1 / (2 * 3)  # from (30, 10) to (34, 12): columns 3 to 5, rows 1 and 2
    np.testing.assert_allclose(objects[0], expected, rtol=1e-6)
    np.testing.assert_allclose(background[0], (expected == 0) / 4)
    assert objects[1].sum() == 0
    np.testing.assert_allclose(background[1], np.full((4, 6), 1 / 24))
    np.testing.assert_allclose(background[2].sum(), 1.0)
    crowd = boxes_of([(4, 4, 20, 28, 1)], crowds=[(0, 0)])
    assert object_masks(crowd, (32, 48), (4, 6))[0].sum() == 0


def attention(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def scaled_softmax(values: np.ndarray) -> np.ndarray:
        powers = np.exp(values / 0.5)
        return values.size * powers / powers.sum()

    return scaled_softmax(np.abs(maps).mean(axis=0)), scaled_softmax(np.abs(maps).mean(axis=(1, 2)))


def with_context(block: nn.Module, maps: np.ndarray) -> np.ndarray:
    weight, bias = (value.detach().numpy() for value in (block.weigh.weight, block.weigh.bias))
    powers = np.exp(np.tensordot(weight[0, :, 0, 0], maps, axes=1) + bias)
    context = (maps * powers / powers.sum()).sum(axis=(1, 2))
    first, _, _, last = block.transform
    hidden = first.weight.detach().numpy() @ context + first.bias.detach().numpy()
    hidden = np.maximum((hidden - hidden.mean()) / math.sqrt(hidden.var() + 1e-5), 0)
    return maps + (last.weight.detach().numpy() @ hidden + last.bias.detach().numpy())[:, None, None]


def test_its_terms_are_those_of_the_definition() -> None:
    torch.manual_seed(0)
    weights = {"objects_weight": 1.0, "background_weight": 2.0, "attention_weight": 3.0, "relation_weight": 4.0}
    method = create_method("fgd", pair_with_maps(8, 8), feature_weight=0.5, **weights).double()
    for block in (module for module in method.modules() if isinstance(module, nn.Linear)):
        nn.init.normal_(block.weight)
    student, teacher = random_maps(3, 8), random_maps(3, 8, seed=1)
    expected = np.zeros((4, 3))
    for imitation, s, t in zip(method.imitations, student, teacher, strict=True):
        masks = object_masks(some_boxes(), (32, 48), tuple(s.shape[-2:]))
        for image in range(3):
            own, other = s[image].numpy(), t[image].numpy()
            (own_places, own_channels), (places, channels) = attention(own), attention(other)
            weighted = ((own - other) ** 2 * channels[:, None, None] * places).sum(axis=0)
            relation = with_context(imitation.student_context, own) - with_context(imitation.teacher_context, other)
            expected[:, image] += [
                *((weighted * mask[image].numpy()).sum() for mask in masks),
                np.abs(own_places - places).sum() + np.abs(own_channels - channels).sum(),
                (relation**2).sum(),
            ]
    outputs = detection_outputs(student, teacher, some_boxes(), proposals=2)
    found = [term.detach().numpy() for term in method.feature_losses(outputs).values()]
    np.testing.assert_allclose(found, 0.5 * np.array([[1], [2], [3], [4]]) * expected.repeat(2, axis=1), rtol=1e-6)


def test_classifiers_are_refused() -> None:
    with pytest.raises(UsageError, match="method 'fgd' compares detectors"):
        FGD(pair_of(frozen_teacher(), frozen_teacher()))
