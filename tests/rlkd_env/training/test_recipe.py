"""Optimisers and schedules by their recipe."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from rlkd_env.errors import UsageError
from rlkd_env.training.recipe import Recipe, TeacherRecipe
from rlkd_env.training.update import Optimization


def rates(recipe: Recipe, steps: int) -> list[float]:
    """The learning rates of so many updates, and the one after them."""
    optimizer = recipe.create_optimizer([nn.Parameter(torch.zeros(1))])
    schedule = recipe.create_schedule(optimizer, steps)
    found = []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_schedules_are_what_they_are_called() -> None:
    cosine = [0.05 * (1 + math.cos(math.pi * step / 40)) / 2 for step in range(41)]
    assert rates(Recipe(), 40) == pytest.approx(cosine)
    assert rates(Recipe(schedule="constant"), 40) == [0.05] * 41
    stepped = rates(Recipe(schedule="step"), 40)
    assert stepped == pytest.approx([0.05] * 25 + [0.005] * 5 + [0.0005] * 5 + [0.00005] * 6)
    assert rates(Recipe(schedule="step", milestones=(0.5,)), 4) == pytest.approx([0.05] * 2 + [0.005] * 3)


def test_optimisers_take_their_numbers_from_the_recipe() -> None:
    weights = [nn.Parameter(torch.zeros(1))]
    sgd = Recipe(learning_rate=0.2, momentum=0.5, weight_decay=1e-3).create_optimizer(iter(weights))
    assert isinstance(sgd, torch.optim.SGD)
    group = sgd.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"], group["params"]) == (0.2, 0.5, 1e-3, weights)
    adam = TeacherRecipe(weight_decay=1e-3).create_optimizer(weights)
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.param_groups[0]["lr"], adam.param_groups[0]["weight_decay"]) == (1e-3, 1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"milestones": (0.5, 0.5)},
        {"milestones": (0.0,)},
        {"milestones": (0.5, 1.0)},
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"momentum": 1.0},
        {"weight_decay": -1e-4},
        {"schedule": "linear"},
        {"optimizer": "lamb"},
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Recipe(**settings)


def test_a_cached_teacher_is_found_by_all_that_it_depends_on() -> None:
    key = TeacherRecipe(model="mlp8").as_key()
    assert "milestones" not in key  # as in caches from before they could be chosen
    assert TeacherRecipe(model="mlp8", milestones=(0.5,)).as_key() == {**key, "milestones": (0.5,)}
    assert TeacherRecipe(model="mlp8", seed=1).as_key() != key


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_a_warm_up_rises_linearly_and_then_the_schedule_begins(schedule: str) -> None:
    found = rates(Recipe(schedule=schedule, epochs=10, learning_rate_warmup=2), 40)
    assert found[:8] == pytest.approx([0.05 * (0.01 + 0.99 * step / 8) for step in range(8)])
    assert found[8:] == pytest.approx(rates(Recipe(schedule=schedule, epochs=10), 32))
    with pytest.raises(UsageError, match="a warm-up of 10 epochs leaves none of 10"):
        Recipe(epochs=10, learning_rate_warmup=10)


def test_adamw_decouples_its_weight_decay() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = Recipe(optimizer="adamw", learning_rate=0.1, weight_decay=0.5).create_optimizer([weight])
    assert isinstance(optimizer, torch.optim.AdamW)
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert weight.item() == pytest.approx(1 - 0.1 * 0.5)


@pytest.mark.parametrize("norm", [None, 0.5, 100.0])
def test_gradients_are_clipped_to_their_norm(norm: float | None) -> None:
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    recipe = Recipe(learning_rate=1.0, momentum=0.0, weight_decay=0.0, schedule="constant", clip_grad_norm=norm)
    optimization = Optimization(recipe, weights, 1)
    optimization.backward((torch.tensor([1.0, 2.0]) * weights[0]).sum() + 2.0 * weights[1].sum())
    optimization.step()
    moved = torch.cat(weights).norm()
    assert moved.item() == pytest.approx(3.0 if norm in (None, 100.0) else 0.5, abs=1e-5)


def test_options_that_came_later_leave_the_key_of_a_teacher_as_it_was() -> None:
    assert TeacherRecipe(clip_grad_norm=1.0).as_key() != TeacherRecipe().as_key()
    assert not {"clip_grad_norm", "label_smoothing", "learning_rate_warmup"} & TeacherRecipe().as_key().keys()
