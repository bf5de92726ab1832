"""Seeded draws leave the global generators alone, and the state of these comes back."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from rlkd_env.utils.randomness import is_stochastic, load_random_state, random_state, seeded

CPU = torch.device("cpu")


def test_a_seeded_block_draws_the_same_and_changes_no_later_draw() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    found = []
    for _ in range(2):
        with seeded(7, CPU):
            found.append(torch.rand(4))
    assert torch.equal(found[0], found[1])
    assert torch.equal(torch.rand(4), expected)


def test_all_generators_go_on_from_their_state() -> None:
    def draws() -> tuple[float, float, float]:
        return random.gauss(0.0, 1.0), float(np.random.randn()), float(torch.randn(()))  # noqa: NPY002

    draws()  # NumPy and Python keep the second of two normal draws for later
    state = random_state()
    expected = draws()
    load_random_state(state)
    assert draws() == expected


def test_networks_that_draw_are_known() -> None:
    for layer in (nn.Dropout(0.1), nn.Dropout2d(0.1), StochasticDepth(0.1, "row")):
        assert is_stochastic(nn.Sequential(nn.Linear(2, 2), nn.Sequential(layer)))
    assert not is_stochastic(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
