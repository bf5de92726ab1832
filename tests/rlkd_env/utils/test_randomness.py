"""Seeded draws leave the global generators alone, and the state of these comes back."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import StochasticDepth

from rlkd_env.utils.randomness import StepRandomness, is_stochastic, load_random_state, random_state, seeded

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


class Drawing(nn.Module):
    """Adds noise in training."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.draw() if self.training else images


DRAWS: dict[str, Callable[[], float]] = {
    "torch": lambda: float(torch.rand(())),
    "functional": lambda: float(F.dropout(torch.ones(1))),
    "python": random.random,
    "numpy": np.random.rand,
}


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.1), nn.Dropout2d(0.1), StochasticDepth(0.1, "row"), *map(Drawing, DRAWS.values())]
)
def test_networks_that_draw_are_known(layer: nn.Module) -> None:
    network, images = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(layer)), torch.rand(4, 1, 2, 2)
    state = random_state()
    assert is_stochastic(network.eval(), images)
    assert not network.training
    assert str(random_state()) == str(state)
    assert not is_stochastic(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), images)


@pytest.mark.parametrize("source", DRAWS)
def test_what_a_step_draws_follows_from_its_seed(source: str) -> None:
    draw, state = DRAWS[source], random_state()
    steps = [StepRandomness(torch.device("cpu")) for _ in range(2)]
    found: list[list[float]] = [[], []]
    for number in range(3):
        for step, draws in zip(steps, found, strict=True):
            with step.seeded(number):
                draws.append(draw())
    assert found[0] == found[1]
    assert steps[0].draws
    if source != "functional":
        assert len(set(found[0])) == 3
    assert str(random_state()) == str(state)
