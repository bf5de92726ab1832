"""Evolution of a coefficient policy: every candidate drives some of many runs, and what counts is how they end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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


class CoefficientForm:
    """How a vector of parameters becomes a map from contexts to coefficients.

    Args:
        name: ``"constant"``: the same coefficients all through; ``"linear"``: linear in the run's progress;
            ``"context"``: also, that of the constant linear in all of the context.
        rule: the rule whose contexts and coefficients they are.
    """

    def __init__(self, name: PolicyForm, rule: CoefficientRule) -> None:
        if name not in get_args(PolicyForm):
            raise unknown_name("form", name, get_args(PolicyForm))
        self.rule = rule
        self._slopes = 0 if name == "constant" else rule.num_coefficients
        self._others = len(rule.context_names) - 1 if name == "context" else 0

    @property
    def num_parameters(self) -> int:
        """Number of parameters D."""
        return self.rule.num_coefficients + self._slopes + self._others

    def unpack(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights ``(P, n, d)`` and biases ``(P, n)`` of P candidates ``(P, D)``."""
        sizes = [self.rule.num_coefficients, self._slopes, self._others]
        biases, slopes, others = parameters.split(sizes, dim=1)
        weights = parameters.new_zeros(*biases.shape, len(self.rule.context_names))
        weights[:, : self._slopes, 0] = slopes  # progress is the first of a context
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
        return Temperature.shared(self._rule.temperatures(coefficients, outputs))


class Evolution:
    """CMA-ES on the parameters of a coefficient policy (Hansen and Ostermeier 2001), by the library ``pycma``.

    What a candidate is worth is seen on the probe images at the end of its runs. Every candidate drives runs of the
    same seeds, and a seed's mean over the candidates is taken off, so that lucky seeds do not count.

    Args:
        sets: K runs of each instance, of one K, a multiple of the population.
        seeds: the seeds that the runs of each instance may have.
        form: the policy's form.
        population: number of candidates P a generation.
        deviation: the standard deviation of the first candidates around 0.
        fitness: name in :data:`FITNESS`.
        seed: the seed of all draws.

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
    ) -> None:
        if fitness not in FITNESS:
            raise unknown_name("fitness", fitness, FITNESS)
        if find_spec("cma") is None:
            raise missing_package("evolution", "pycma", "evolution")
        if population < 4:
            raise UsageError(f"evolution needs a population of at least 4, not {population}")
        if (num_runs := sets[0].num_runs) % population:
            raise UsageError(f"num_runs={num_runs} must be a multiple of the population {population}")
        if not deviation > 0:
            raise UsageError(f"the initial deviation must be positive, not {deviation:g}")
        self._sets, self._seeds, self._form = sets, seeds, form
        self._population, self._deviation, self._seed = population, deviation, seed
        self._measure = FITNESS[fitness]
        self._start()

    def _start(self) -> None:
        import cma

        self.generation = 0
        self._fitness: list[list[float]] = []
        self._centres: list[np.ndarray] = []
        draws = np.random.default_rng([self._seed, 0])
        # NumPy's global generator is not ours to seed.
        randomness = {"randn": lambda *shape: draws.standard_normal(shape), "seed": math.nan}
        options = {"popsize": self._population, "verbose": -9, "verb_log": 0, **randomness}
        self._search = cma.CMAEvolutionStrategy(np.zeros(self._form.num_parameters), self._deviation, options)

    def update(self) -> dict[str, float]:
        """Make a generation; return its figures."""
        candidates = np.array(self._search.ask())
        figures = self._figures(torch.from_numpy(candidates).float())
        self._tell(candidates, (figures - figures.mean(axis=0)).mean(axis=1).tolist())
        return {
            "fitness": float(figures.mean()),
            "fitness_spread": float(figures.mean(axis=1).std()),
            "deviation": float(self._search.sigma),
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

    def _figures(self, candidates: Tensor) -> np.ndarray:
        """Return the figures ``(P, S)`` of the candidates' runs, S of the same seeds each."""
        draws, columns = np.random.default_rng([self._seed, 1, self.generation]), []
        for runs, seeds in zip(self._sets, self._seeds, strict=True):
            chosen = draws.choice(seeds.stop - seeds.start, runs.num_runs // len(candidates)) + seeds.start
            runs.reset(np.tile(chosen, len(candidates)).tolist())
            runs.advance(Candidates(self._form, candidates.to(runs.device), runs.num_runs))
            figures = self._measure(runs.evaluate(runs.template.probe)).nan_to_num(nan=_WORST, posinf=_WORST)
            columns.append(figures.clamp(max=_WORST).cpu().numpy().reshape(len(candidates), -1))
        return np.concatenate(columns, axis=1)
