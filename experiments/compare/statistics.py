"""What runs over several seeds say about an arm: means, paired differences, and how sure they are.

Intervals are Student's t at a level of 95 %. A comparison has 3 to 10 seeds, where bootstrap intervals are too narrow:
on normal differences without any effect the percentile and the BCa bootstrap contain zero in 81 % of the cases with
5 seeds and in 89 % with 10, Student's in 95 %. The bootstrap's interval stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
_RESAMPLES = 9999


@dataclass(frozen=True)
class Estimate:
    """A mean with its intervals.

    Attributes:
        mean: of the values.
        count: number of values.
        interval: Student's t interval of the mean, or None for a single value.
        bootstrap_interval: percentile bootstrap of the mean, likewise.
    """

    mean: float
    count: int
    interval: tuple[float, float] | None
    bootstrap_interval: tuple[float, float] | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def estimate_mean(values: Sequence[float]) -> Estimate:
    """Estimate the mean of independent values, such as one figure of an arm's seeds or paired differences.

    Raises:
        ValueError: if there is no value.
    """
    if not len(values):
        raise ValueError("the mean of no values is not defined")
    sample = np.asarray(values, dtype=float)
    if len(sample) == 1:
        return Estimate(float(sample[0]), 1, None, None)
    return Estimate(float(sample.mean()), len(sample), student_interval(sample), bootstrap_interval(sample))


def student_interval(sample: np.ndarray) -> tuple[float, float]:
    """Return Student's t interval of the mean of at least two values."""
    mean = float(sample.mean())
    if np.ptp(sample) == 0.0:  # which SciPy answers with NaN
        return mean, mean
    low, high = stats.t.interval(LEVEL, df=len(sample) - 1, loc=mean, scale=stats.sem(sample))
    return float(low), float(high)


def bootstrap_interval(sample: np.ndarray) -> tuple[float, float]:
    """Return the percentile bootstrap of the mean, from draws that are the same whenever the sample is."""
    draws = np.random.default_rng(0)
    result = stats.bootstrap(
        (sample,), np.mean, n_resamples=_RESAMPLES, confidence_level=LEVEL, method="percentile", random_state=draws
    )
    low, high = result.confidence_interval
    return float(low), float(high)


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> Estimate:
    """Estimate the mean of ``values - reference``, seed by seed.

    Raises:
        ValueError: if there is no pair, or a value without its partner.
    """
    differences = [value - other for value, other in zip(values, reference, strict=True)]
    return estimate_mean(differences)


def probability_of_improvement(values: Sequence[float], reference: Sequence[float]) -> float:
    """Return the probability that a run of one arm is better than a run of the other; ties count half.

    It is the Mann-Whitney statistic over the number of pairs (Agarwal et al. 2021, Deep RL at the Edge of the
    Statistical Precipice, section 4.3).

    Raises:
        ValueError: if there are no values.
    """
    return float(stats.mannwhitneyu(values, reference).statistic) / (len(values) * len(reference))
