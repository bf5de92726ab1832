"""Evolution of a coefficient policy: every candidate drives some of many runs, and what counts is how they end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from agents.learned.coefficient_policy import CoefficientPolicy
from rlkd_env.errors import UsageError, missing_package, unknown_name
from rlkd_env.instances.coefficients import CoefficientRule
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.parallel import ParallelRuns
from rlkd_env.tasks import Evaluation
from rlkd_env.utils.choices import PolicyForm

FITNESS: dict[str, Callable[[Evaluation], Tensor]] = {
    "loss": lambda probe: probe.loss.log(),
    "confidence": lambda probe: (1.0 - probe.confidence).log(),
    "accuracy": lambda probe: 1.0 - probe.accuracy,
}
"""What of the students' evaluation is to become small; logarithms make easy and hard instances weigh the same."""
_WORST = 10.0
"""Greatest figure that counts, and that of a run that diverged."""
_LEAST_SCALE = 1e-4
"""Deviation of a figure over seeds below which it counts as that much."""
_LOSS_WEIGHT = 3.0
"""What a loss against the schedule counts, where a gain counts 1: a policy should nowhere be worse."""


class CoefficientForm:
    """How a vector of parameters becomes a map from contexts to coefficients.

    Args:
        name: ``"constant"``: the same coefficients all through; ``"linear"``: linear in the run's progress;
            ``"context"``: also, that of the constant linear in all of the context; ``"instances"``: linear in the
            progress those of the features, and none of the constant, so that the level stays the schedule's.
        rule: the rule whose contexts and coefficients they are.

    Raises:
        UsageError: if the form is unknown.
    """

    def __init__(self, name: PolicyForm, rule: CoefficientRule) -> None:
        if name not in get_args(PolicyForm):
            raise unknown_name("form", name, get_args(PolicyForm))
        self.rule = rule
        self._first = 1 if name == "instances" else 0  # the coefficient of the constant comes before the others
        self._chosen = rule.num_coefficients - self._first
        self._slopes = 0 if name == "constant" else self._chosen
        self._others = len(rule.context_names) - 1 if name == "context" else 0

    @property
    def num_parameters(self) -> int:
        """Number of parameters D."""
        return self._chosen + self._slopes + self._others

    def unpack(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights ``(P, n, d)`` and biases ``(P, n)`` of P candidates ``(P, D)``."""
        chosen, slopes, others = parameters.split([self._chosen, self._slopes, self._others], dim=1)
        biases = parameters.new_zeros(len(parameters), self.rule.num_coefficients)
        weights = parameters.new_zeros(*biases.shape, len(self.rule.context_names))
        biases[:, self._first :] = chosen
        weights[:, self._first : self._first + self._slopes, 0] = slopes  # progress is the first of a context
        weights[:, 0, 1 : 1 + self._others] = others
        return weights, biases

    def policy(self, parameters: Tensor) -> CoefficientPolicy:
        """Return the policy of one candidate ``(D,)``."""
        weights, biases = self.unpack(parameters.float().unsqueeze(0))
        layer = nn.Linear(len(self.rule.context_names), self.rule.num_coefficients)
        layer.load_state_dict({"weight": weights[0], "bias": biases[0]})
        return CoefficientPolicy([layer], self.rule)


class Candidates:
    """P candidates with parameters ``(P, D)`` as the policy of K runs: run k follows candidate k // (K / P)."""

    def __init__(self, form: CoefficientForm, parameters: Tensor, num_runs: int) -> None:
        self._rule = form.rule
        self._weights, self._biases = form.unpack(parameters.repeat_interleave(num_runs // len(parameters), dim=0))

    def __call__(self, outputs: InstanceOutputs) -> Temperature:
        """Choose the temperatures of the K runs' batches."""
        coefficients = torch.einsum("knd,kd->kn", self._weights, self._rule.context(outputs)) + self._biases
        return self._rule.temperature(coefficients, outputs)


class Evolution:
    """CMA-ES on the parameters of a coefficient policy (Hansen and Ostermeier 2001), by the library ``pycma``.

    What a candidate is worth is seen on the probe images at the end of its runs: by how much they end better than
    runs of the same seeds under the schedule alone, whose parameters are 0. Every instance's gain is divided by the
    deviation of the schedule's figure over seeds and approaches 1 softly, so that no instance outvotes the others; a
    loss counts three times, as a policy should nowhere cost what the schedule gives; and a penalty keeps parameters
    small that gain nothing. Candidates come in pairs on both sides of the search's centre.

    Args:
        sets: K runs of each instance, of one K, a multiple of the population plus 1.
        seeds: the seeds that the runs of each instance may have.
        form: the policy's form.
        population: number of candidates P a generation.
        deviation: the standard deviation of the first candidates around 0.
        fitness: name in :data:`FITNESS`.
        seed: the seed of all draws.
        penalty: what the sum of the squared parameters costs, in deviations of the figure over seeds.
        instances_per_update: number of instances, drawn for each generation, that its candidates run on; None for all.

    Raises:
        UsageError: if pycma is not installed, the fitness is unknown or a number does not fit.
    """

    def __init__(
        self,
        sets: Sequence[ParallelRuns],
        seeds: Sequence[range],
        form: CoefficientForm,
        population: int,
        deviation: float,
        fitness: str,
        seed: int,
        penalty: float = 0.0,
        instances_per_update: int | None = None,
    ) -> None:
        if fitness not in FITNESS:
            raise unknown_name("fitness", fitness, FITNESS)
        if find_spec("cma") is None:
            raise missing_package("evolution", "cma")
        if population < 4:
            raise UsageError(f"evolution needs a population of at least 4, not {population}")
        if not deviation > 0:
            raise UsageError(f"the initial deviation must be positive, not {deviation:g}")
        if sets[0].num_runs % (population + 1):
            raise UsageError(f"{sets[0].num_runs} runs cannot be shared by {population} candidates and the schedule")
        count = len(sets) if instances_per_update is None else instances_per_update
        if not 1 <= count <= len(sets):
            raise UsageError(f"a generation can run on 1 to {len(sets)} instances, not {count}")
        self._sets, self._seeds, self._form, self._count = sets, seeds, form, count
        self._population, self._deviation, self._seed = population, deviation, seed
        self._penalty, self._measure = penalty, FITNESS[fitness]
        self._start()

    def _start(self) -> None:
        import cma

        self.generation = 0
        self._fitness: list[list[float]] = []
        self._centres: list[np.ndarray] = []
        draws = np.random.default_rng([self._seed, 0])
        # NumPy's global generator is not ours to seed.
        randomness = {"randn": lambda *shape: draws.standard_normal(shape), "seed": math.nan}
        pairs = {"CMA_mirrors": self._population // 2, "CMA_mirrormethod": 0}
        fixed = {"AdaptSigma": False}  # steps that shrink with the noise would end the search early
        options = {"popsize": self._population, "verbose": -9, "verb_log": 0, **pairs, **fixed, **randomness}
        self._search = cma.CMAEvolutionStrategy(np.zeros(self._form.num_parameters), self._deviation, options)

    def update(self) -> dict[str, float]:
        """Make a generation; return its figures."""
        candidates = np.array(self._search.ask())
        gains = self._gains(torch.from_numpy(candidates).float())
        fitness = gains.mean(axis=0) - self._penalty * np.square(candidates).sum(axis=1)
        self._tell(candidates, (-fitness).tolist())
        return {
            "gain": float(gains.mean()),
            "gain_spread": float(gains.mean(axis=0).std()),
            "deviation": float(self._search.sigma),
            "centre": float(np.linalg.norm(self._centres[-1])),
        }

    def policy(self) -> CoefficientPolicy:
        """Return the policy in the middle of the search, averaged over the last half of the generations.

        With figures as noisy as these the luckiest candidate is not the best one, and the middle wanders.
        """
        centres = self._centres[self.generation // 2 :] or [np.zeros(self._form.num_parameters)]
        return self._form.policy(torch.from_numpy(np.mean(centres, axis=0)))

    def state_dict(self) -> dict[str, Any]:
        """Return every generation's fitness, from which, with the seed, the whole search follows."""
        return {"fitness": [list(figures) for figures in self._fitness]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, which repeats the search without its runs."""
        self._start()
        for fitness in state["fitness"]:
            self._tell(np.array(self._search.ask()), fitness)

    def _tell(self, candidates: np.ndarray, fitness: list[float]) -> None:
        self._search.tell(list(candidates), fitness)
        self._fitness.append(fitness)
        self._centres.append(np.array(self._search.mean))
        self.generation += 1

    def _gains(self, candidates: Tensor) -> np.ndarray:
        """Return the gains ``(M, P)`` of the candidates over the schedule on M instances, each in its own scale."""
        draws, gains = np.random.default_rng([self._seed, 1, self.generation]), []
        followed = torch.cat([torch.zeros_like(candidates[:1]), candidates])
        for number in sorted(draws.choice(len(self._sets), self._count, replace=False)):
            runs, seeds = self._sets[number], self._seeds[number]
            chosen = draws.choice(seeds.stop - seeds.start, runs.num_runs // len(followed)) + seeds.start
            figures = self._figures(runs, followed, np.tile(chosen, len(followed)).tolist())
            figures = figures.reshape(len(followed), -1).mean(axis=1)
            counted = np.tanh((figures[0] - figures[1:]) / self._scales[number])
            gains.append(np.where(counted < 0.0, _LOSS_WEIGHT * counted, counted))
        return np.array(gains)

    @cached_property
    def _scales(self) -> list[float]:
        """The standard deviation over seeds of the schedule's figure on every instance."""
        schedule = torch.zeros(1, self._form.num_parameters)
        scales = []
        for runs, seeds in zip(self._sets, self._seeds, strict=True):
            chosen = np.linspace(seeds.start, seeds.stop - 1, runs.num_runs).astype(int).tolist()
            scales.append(max(float(self._figures(runs, schedule, chosen).std()), _LEAST_SCALE))
        return scales

    def _figures(self, runs: ParallelRuns, candidates: Tensor, seeds: Sequence[int]) -> np.ndarray:
        """Return what is to become small at the end of K runs of these seeds, ``(K,)``."""
        runs.reset(seeds)
        runs.advance(Candidates(self._form, candidates.to(runs.device), runs.num_runs))
        figures = self._measure(runs.evaluate(runs.template.probe)).nan_to_num(nan=_WORST, posinf=_WORST)
        return figures.clamp(max=_WORST).double().cpu().numpy()


def runs_of_candidates(num_runs: int, population: int) -> int:
    """Return the number of runs K of an instance in which the candidates have ``num_runs``: the schedule has its own.

    Raises:
        UsageError: if the candidates cannot share their runs evenly.
    """
    if num_runs % population:
        raise UsageError(f"num_runs={num_runs} must be a multiple of the population {population}")
    return num_runs + num_runs // population
