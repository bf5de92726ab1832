"""The paper's calibrator: it learns online which instances and actions a batch's reward came from."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_WINDOW = 64  # number of latest measured rewards that the metrics cover
_HISTORIES = ("features", "rewards", "precisions", "predicted")
_FITS_PER_DOUBLING = 64
"""Fits while the number of rewards doubles. Each takes time in proportion to that number, so a step of a long run would
cost ever more if the fits always were equally far apart."""


class _History:
    """Rows that are appended one by one, each at the same cost: the room for them is doubled when it is used up."""

    def __init__(self, rows: np.ndarray) -> None:
        self._room, self._count = rows, len(rows)

    @property
    def rows(self) -> np.ndarray:
        return self._room[: self._count]

    def append(self, row: np.ndarray | float) -> None:
        if self._count == len(self._room):
            more = np.zeros((max(_WINDOW, self._count), *self._room.shape[1:]))
            self._room = np.concatenate([self._room, more])
        self._room[self._count] = row
        self._count += 1


class ReturnDecomposition:
    """Predicts a batch's reward as a sum over its instances and gives each its part (arXiv 2407.00115, section 3.3).

    The prediction for a measured interval is Σ_steps [base(mean state) + mean_i credit(s_i, a_i)]. The credit is a
    polynomial: a and a², each times all monomials of the state up to degree 2, so it is 0 for the action 0, the
    reference. The base is a polynomial of degree 2 in the mean state and explains what follows from the state of the
    run. Both are fitted together to all rewards so far by Bayesian ridge regression, which estimates from the rewards
    how far to trust them: if they say nothing about the actions, the credits shrink to 0 and every instance earns the
    batch reward. A fit follows every ``fit_interval`` rewards; from 2,048 rewards on it is less often, 64 times while
    their number doubles.

    The paper trains a network instead. A run measures a few hundred rewards, each the mean of 64 instances' parts,
    which is enough to find about forty coefficients exactly, but too little to train a network.

    Attributes:
        metrics: of the latest rewards, each predicted before it was learned from: ``loss`` (mean squared error in units
            of their mean square) and ``r2`` (share of their variance that was predicted).
    """

    takes_several_runs = False

    def __init__(self, num_features: int, num_actions: int = 1, fit_interval: int = 16) -> None:
        self._fit_interval = fit_interval
        self._base_width = 1 + 2 * num_features
        monomials = 1 + num_features + num_features * (num_features + 1) // 2
        width = self._base_width + 2 * num_actions * monomials
        self._features = _History(np.zeros((0, width)))
        self._rewards, self._precisions, self._predicted = (_History(np.zeros(0)) for _ in range(3))
        self.weights = np.zeros(width)
        self.pending = np.zeros(width)
        self.metrics: dict[str, float] = {}

    def credit(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Credit instances ``(N,)`` for states ``(N, d)`` and actions ``(N, a)``; the step joins the open interval."""
        features = _credit_features(states.astype(np.float64), actions.astype(np.float64))
        mean_state = states.mean(axis=0, dtype=np.float64)
        self.pending = self.pending + np.concatenate([[1.0], mean_state, mean_state**2, features.mean(axis=0)])
        return features @ self.weights[self._base_width :]

    def learn(self, reward: float) -> None:
        """Learn from the reward that was measured for the steps credited since the last one."""
        self._predicted.append(self.pending @ self.weights)
        self._features.append(self.pending)
        self._rewards.append(reward)
        recent = self._rewards.rows[-_WINDOW:]
        # Rewards fall by orders of magnitude over a run: each counts in units of those around it.
        self._precisions.append(1.0 / max(float(np.mean(recent**2)), 1e-24))
        self.forget_interval()
        self._log(recent, recent - self._predicted.rows[-_WINDOW:])
        if self._is_fit_due(len(self._rewards.rows)):
            self._fit()

    def _is_fit_due(self, count: int) -> bool:
        power_of_two = 1 << (count.bit_length() - 1)
        interval = max(self._fit_interval, power_of_two // _FITS_PER_DOUBLING)
        return count >= 2 * self._fit_interval and count % interval == 0

    def forget_interval(self) -> None:
        """Drop the steps whose reward will never be measured."""
        self.pending = np.zeros_like(self.pending)

    def _fit(self) -> None:
        from sklearn.linear_model import BayesianRidge  # which takes as long to import as PyTorch

        features, rewards, precisions = self._features.rows, self._rewards.rows, self._precisions.rows
        spread = features.std(axis=0) + 1e-12
        unit = rewards.std() + 1e-24
        regression = BayesianRidge(fit_intercept=False)
        spread[0] = 1.0  # the constant
        # On one thread: BLAS threads that wait for more work would slow the next KD steps down by half.
        with _threads().limit(limits=1, user_api="blas"):
            regression.fit(features / spread, rewards / unit, sample_weight=precisions / precisions.mean())
        self.weights = regression.coef_ / spread * unit

    def _log(self, rewards: np.ndarray, errors: np.ndarray) -> None:
        self.metrics = {"loss": float((errors**2).mean() / max((rewards**2).mean(), 1e-24))}
        if rewards.var() > 0:
            self.metrics["r2"] = float(1.0 - (errors**2).mean() / rewards.var())

    def state_dict(self) -> dict[str, Any]:
        """Return everything remembered and learned, as tensors and plain values."""
        arrays = {name: getattr(self, f"_{name}").rows for name in _HISTORIES}
        arrays |= {"weights": self.weights, "pending": self.pending}
        tensors = {name: torch.from_numpy(values.copy()) for name, values in arrays.items()}
        return {"arrays": tensors, "metrics": dict(self.metrics)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        arrays = {name: values.numpy().copy() for name, values in state["arrays"].items()}
        self.weights, self.pending = arrays["weights"], arrays["pending"]
        for name in _HISTORIES:
            setattr(self, f"_{name}", _History(arrays[name]))
        self.metrics = dict(state["metrics"])


@lru_cache(maxsize=1)
def _threads() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@lru_cache(maxsize=8)
def _pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of a matrix's upper triangle."""
    rows, columns = np.triu_indices(count)
    return rows, columns


def _credit_features(states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """``(N, d)`` states, ``(N, a)`` actions to ``(N, 2 a (1 + d + d (d + 1) / 2))`` monomials, 0 for the action 0."""
    rows, columns = _pairs(states.shape[1])
    monomials = np.concatenate([np.ones((len(states), 1)), states, states[:, rows] * states[:, columns]], axis=1)
    powers = np.concatenate([actions, actions**2], axis=1)
    return (powers[:, :, None] * monomials[:, None, :]).reshape(len(states), -1)
