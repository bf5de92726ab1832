"""Evolution over many runs, and what is saved of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from coefficient_runs import RULE, SEEDS, level, make_runs, outputs

from agents.learned.evolution import Candidates, CoefficientForm, Evolution, runs_of_candidates
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.runs.parallel import ParallelRuns
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]


def make_evolution(runs: ParallelRuns, fitness: str = "confidence", **options: object) -> Evolution:
    return Evolution([runs], [SEEDS], CoefficientForm("linear", RULE), 4, 0.3, fitness, 0, **options)


@pytest.mark.parametrize(("form", "parameters"), [("constant", 3), ("linear", 6), ("context", 9), ("instances", 4)])
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


def test_a_policy_of_instances_leaves_the_level_to_the_schedule() -> None:
    chosen = CoefficientForm("instances", RULE)
    policy, given = chosen.policy(torch.full((4,), 0.2)), outputs(1)
    assert (policy.coefficients(given)[:, 0] == 0.0).all()
    ratio = (level(policy(given)) / RULE.schedule.of(given)).log()
    assert ratio.std() > 0.05
    assert abs(float(ratio.mean())) < 0.2 * float(ratio.std())


class Bowl(ParallelRuns):
    """Runs that end the better, the nearer log T was to the schedule's -0.4 at the start and +0.4 at the end."""

    mode = "bowl"

    def __init__(self, template: DistillationRun, num_runs: int) -> None:
        super().__init__(template, num_runs)
        self.penalty = torch.zeros(num_runs)

    def reset(self, seeds: list[int]) -> torch.Tensor:
        self.penalty = 0.1 + 0.1 * (torch.tensor(seeds) % 5)  # luck, which is the same for all candidates
        return self.penalty

    def advance(self, policy: Callable[[InstanceOutputs], object], steps: int | None = None) -> None:
        for progress, goal in ((0.0, -0.4), (1.0, 0.4)):
            given = outputs(self.num_runs, progress)
            chosen = given.by_run(level(policy(given)) / RULE.schedule.of(given)).log()
            self.penalty += (chosen - goal).square().mean(1)

    def evaluate(self, images: object) -> object:
        return type("Evaluation", (), {"confidence": 1.0 - self.penalty / 4.0, "loss": self.penalty})()

    _start = _update = _run_states = _restore = None  # type: ignore[assignment]


@pytest.mark.slow
def test_evolution_finds_a_known_optimum(make_run: MakeRun) -> None:
    Bowl.__abstractmethods__ = frozenset()
    evolution = Evolution([Bowl(make_run(), 13)], [SEEDS], CoefficientForm("linear", RULE), 12, 0.3, "confidence", 0)
    for _ in range(60):
        evolution.update()
    policy = evolution.policy()
    for progress, goal in ((0.0, -0.4), (1.0, 0.4)):
        given = outputs(1, progress)
        chosen = (level(policy(given)) / RULE.schedule.of(given)).log()
        torch.testing.assert_close(chosen, torch.full((16,), goal), atol=0.1, rtol=0)


@pytest.mark.slow
def test_evolution_goes_on_as_if_it_had_not_been_stopped(make_run: MakeRun) -> None:
    whole, first = (make_evolution(make_runs(make_run, 5)) for _ in range(2))
    for _ in range(4):
        whole.update()
    for _ in range(2):
        first.update()
    second = make_evolution(make_runs(make_run, 5))
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second.update()
    assert second.generation == 4
    assert second.state_dict() == whole.state_dict()
    assert torch.equal(second.policy().network[0].bias, whole.policy().network[0].bias)


@pytest.mark.parametrize("fitness", ["loss", "accuracy"])
def test_every_fitness_makes_a_generation(fitness: str, make_run: MakeRun) -> None:
    figures = make_evolution(make_runs(make_run, 5), fitness).update()
    assert np.isfinite(list(figures.values())).all()


def test_diverged_candidates_are_the_worst(make_run: MakeRun) -> None:
    evolution = make_evolution(make_runs(make_run, 5, learning_rate=1e6))
    assert np.isfinite(evolution.update()["gain"])
    assert np.isfinite(evolution.policy().network[0].bias.numpy()).all()


def test_bad_settings_are_told(make_run: MakeRun) -> None:
    runs = make_runs(make_run, 5)
    for wrong, message in (
        (("linear", 3, 0.3, "loss", None), "at least 4"),
        (("linear", 5, 0.3, "loss", None), "5 runs cannot be shared by 5 candidates"),
        (("linear", 4, 0.0, "loss", None), "must be positive"),
        (("linear", 4, 0.3, "luck", None), "unknown fitness 'luck'"),
        (("square", 4, 0.3, "loss", None), "unknown form 'square'"),
        (("linear", 4, 0.3, "loss", 2), "can run on 1 to 1 instances, not 2"),
    ):
        form, population, deviation, fitness, count = wrong
        with pytest.raises(UsageError, match=message):
            Evolution([runs], [SEEDS], CoefficientForm(form, RULE), population, deviation, fitness, 0, 0.0, count)
    with pytest.raises(UsageError, match="multiple of the population 5"):
        runs_of_candidates(12, 5)


def test_candidates_come_in_pairs_around_the_schedule(make_run: MakeRun) -> None:
    evolution = make_evolution(make_runs(make_run, 5))
    candidates = np.array(evolution._search.ask())
    np.testing.assert_allclose(candidates[0::2], -candidates[1::2])


def test_candidates_of_the_schedules_own_coefficients_gain_nothing(make_run: MakeRun) -> None:
    evolution = make_evolution(make_runs(make_run, 10))
    assert (evolution._gains(torch.zeros(4, 6)) == 0.0).all()
    assert (evolution._gains(torch.linspace(-1.0, 1.0, 24).view(4, 6)) != 0.0).all()


def test_gains_are_in_deviations_of_the_schedules_figure_over_seeds(make_run: MakeRun) -> None:
    runs = make_runs(make_run, 5)
    evolution, candidates = make_evolution(runs), torch.linspace(-1.0, 1.0, 24).view(4, 6)
    (scale,) = evolution._scales
    gains = evolution._gains(candidates)
    seed = runs.seeds[0]
    assert set(runs.seeds) == {seed}  # the same for all candidates
    figures = []
    for parameters in (torch.zeros(6), *candidates):
        runs.reset([seed] * 5)
        runs.advance(CoefficientForm("linear", RULE).policy(parameters))
        figures.append(float((1.0 - runs.evaluate(runs.template.probe).confidence[0]).log()))
    runs.reset([100, 124, 149, 174, 199])
    runs.advance(CoefficientForm("linear", RULE).policy(torch.zeros(6)))
    deviation = (1.0 - runs.evaluate(runs.template.probe).confidence).log().std(correction=0)
    assert scale == pytest.approx(float(deviation), rel=1e-3)
    expected = [(figures[0] - figure) / scale for figure in figures[1:]]
    counted = [np.tanh(gain) * (1.0 if gain > 0.0 else 3.0) for gain in expected]
    np.testing.assert_allclose(gains[0], counted, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_a_penalty_keeps_what_gains_nothing_small(make_run: MakeRun) -> None:
    Bowl.__abstractmethods__ = frozenset()

    class Flat(Bowl):
        def evaluate(self, images: object) -> object:
            return type("Evaluation", (), {"confidence": torch.rand(self.num_runs)})()

    def distance(penalty: float) -> float:
        torch.manual_seed(0)
        form = CoefficientForm("linear", RULE)
        evolution = Evolution([Flat(make_run(), 13)], [SEEDS], form, 12, 0.3, "confidence", 0, penalty)
        return [evolution.update()["centre"] for _ in range(40)][-1]

    assert distance(20.0) < 0.2 < distance(0.0)


def test_a_generation_runs_on_as_many_instances_as_told(make_run: MakeRun) -> None:
    sets = [make_runs(make_run, 5, epochs=1) for _ in range(3)]
    form = CoefficientForm("constant", RULE)
    evolution = Evolution(sets, [SEEDS] * 3, form, 4, 0.3, "confidence", 0, 0.0, 2)
    assert evolution._gains(torch.zeros(4, 3)).shape == (2, 4)
