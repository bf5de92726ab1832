"""Evolution over many runs, and what is saved of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from coefficient_runs import RULE, SEEDS, make_runs, outputs

from agents.learned.evolution import Candidates, CoefficientForm, Evolution
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.runs.parallel import ParallelRuns
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]


def make_evolution(runs: ParallelRuns, form: str = "linear", fitness: str = "confidence", seed: int = 0) -> Evolution:
    return Evolution([runs], [SEEDS], CoefficientForm(form, RULE), 4, 0.3, fitness, seed)


@pytest.mark.parametrize(("form", "parameters"), [("constant", 3), ("linear", 6), ("context", 9)])
def test_a_candidates_runs_follow_the_policy_of_its_parameters(form: str, parameters: int) -> None:
    chosen = CoefficientForm(form, RULE)
    assert chosen.num_parameters == parameters
    candidates = torch.randn(2, parameters, generator=torch.Generator().manual_seed(1))
    together = Candidates(chosen, candidates, num_runs=4)(outputs(4)).student.view(4, 16)
    for run in range(4):
        alone = chosen.policy(candidates[run // 2])(outputs(4)).student.view(4, 16)[run]
        torch.testing.assert_close(together[run], alone)


def test_a_constant_policy_ignores_progress_and_a_linear_one_does_not() -> None:
    for form, differs in (("constant", False), ("linear", True)):
        chosen = CoefficientForm(form, RULE)
        policy = chosen.policy(torch.linspace(-0.5, 0.5, chosen.num_parameters))
        early, late = (policy.coefficients(outputs(1, progress)) for progress in (0.1, 0.9))
        assert bool((early != late).any()) is differs


class Bowl(ParallelRuns):
    """Runs that end the better, the nearer log T was to the schedule's -0.4 at the start and +0.4 at the end."""

    mode = "bowl"

    def __init__(self, template: DistillationRun, num_runs: int) -> None:
        super().__init__(template, num_runs)
        self.penalty = torch.zeros(num_runs)

    def reset(self, seeds: object) -> torch.Tensor:
        self.penalty = torch.zeros(self.num_runs)
        return self.penalty

    def advance(self, policy: Callable[[InstanceOutputs], object], steps: int | None = None) -> None:
        for progress, goal in ((0.0, -0.4), (1.0, 0.4)):
            given = outputs(self.num_runs, progress)
            chosen = given.by_run(policy(given).student / RULE.schedule.of(given)).log()
            self.penalty += (chosen - goal).square().mean(1)

    def evaluate(self, images: object) -> object:
        return type("Evaluation", (), {"confidence": 1.0 - self.penalty / 4.0, "loss": self.penalty})()

    _start = _update = _run_states = _restore = None  # type: ignore[assignment]


@pytest.mark.slow
def test_evolution_finds_a_known_optimum(make_run: MakeRun) -> None:
    Bowl.__abstractmethods__ = frozenset()
    evolution = Evolution([Bowl(make_run(), 12)], [SEEDS], CoefficientForm("linear", RULE), 12, 0.3, "confidence", 0)
    for _ in range(60):
        evolution.update()
    policy = evolution.policy()
    for progress, goal in ((0.0, -0.4), (1.0, 0.4)):
        given = outputs(1, progress)
        chosen = (policy(given).student / RULE.schedule.of(given)).log()
        torch.testing.assert_close(chosen, torch.full((16,), goal), atol=0.05, rtol=0)


@pytest.mark.slow
def test_evolution_goes_on_as_if_it_had_not_been_stopped(make_run: MakeRun) -> None:
    whole, first = (make_evolution(make_runs(make_run)) for _ in range(2))
    for _ in range(4):
        whole.update()
    for _ in range(2):
        first.update()
    second = make_evolution(make_runs(make_run))
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second.update()
    assert second.generation == 4
    assert second.state_dict() == whole.state_dict()
    assert torch.equal(second.policy().network[0].bias, whole.policy().network[0].bias)


@pytest.mark.parametrize("fitness", ["loss", "accuracy"])
def test_every_fitness_makes_a_generation(fitness: str, make_run: MakeRun) -> None:
    figures = make_evolution(make_runs(make_run), fitness=fitness).update()
    assert np.isfinite(list(figures.values())).all()


def test_diverged_candidates_are_the_worst(make_run: MakeRun) -> None:
    evolution = make_evolution(make_runs(make_run, learning_rate=1e6))
    assert evolution.update()["fitness"] >= -1.0
    assert np.isfinite(evolution.policy().network[0].bias.numpy()).all()


def test_bad_settings_are_told(make_run: MakeRun) -> None:
    runs = make_runs(make_run)
    for wrong, message in (
        (("linear", 3, 0.3, "loss"), "at least 4"),
        (("linear", 5, 0.3, "loss"), "multiple of the population"),
        (("linear", 4, 0.0, "loss"), "must be positive"),
        (("linear", 4, 0.3, "luck"), "unknown fitness 'luck'"),
        (("square", 4, 0.3, "loss"), "unknown form 'square'"),
    ):
        form, population, deviation, fitness = wrong
        with pytest.raises(UsageError, match=message):
            Evolution([runs], [SEEDS], CoefficientForm(form, RULE), population, deviation, fitness, 0)
