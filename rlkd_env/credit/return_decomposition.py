"""The paper's calibrator: it learns online which instances and actions a batch's reward came from."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_WINDOW = 64  # number of latest measured rewards that the metrics cover
_ARRAYS = ("features", "rewards", "precisions", "weights", "pending", "predicted")


class ReturnDecomposition:
    """Predicts a batch's reward as a sum over its instances and gives each its part (arXiv 2407.00115, section 3.3).

    The prediction for a measured interval is Σ_steps [base(mean state) + mean_i credit(s_i, a_i)]. The credit is a
    polynomial: a and a², each times all monomials of the state up to degree 2, so it is 0 for the action 0, the
    reference. The base is a polynomial of degree 2 in the mean state and explains what follows from the state of the
    run. Both are fitted together to all rewards so far by Bayesian ridge regression, which estimates from the rewards
    how far to trust them: if they say nothing about the actions, the credits shrink to 0 and every instance earns the
    batch reward.

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
        self.features = np.zeros((0, width))
        self.rewards = np.zeros(0)
        self.precisions = np.zeros(0)
        self.predicted = np.zeros(0)
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
        self.predicted = np.append(self.predicted, self.pending @ self.weights)
        self.features = np.vstack([self.features, self.pending])
        self.rewards = np.append(self.rewards, reward)
        recent = self.rewards[-_WINDOW:]
        # Rewards fall by orders of magnitude over a run: each counts in units of those around it.
        self.precisions = np.append(self.precisions, 1.0 / max(float(np.mean(recent**2)), 1e-24))
        self.forget_interval()
        self._log(recent, recent - self.predicted[-_WINDOW:])
        if len(self.rewards) >= 2 * self._fit_interval and len(self.rewards) % self._fit_interval == 0:
            self._fit()

    def forget_interval(self) -> None:
        """Drop the steps whose reward will never be measured."""
        self.pending = np.zeros_like(self.pending)

    def _fit(self) -> None:
        from sklearn.linear_model import BayesianRidge  # which takes as long to import as PyTorch

        spread = self.features.std(axis=0) + 1e-12
        unit = self.rewards.std() + 1e-24
        regression = BayesianRidge(fit_intercept=False)
        precisions = self.precisions / self.precisions.mean()
        spread[0] = 1.0  # the constant
        # On one thread: BLAS threads that wait for more work would slow the next KD steps down by half.
        with _threads().limit(limits=1, user_api="blas"):
            regression.fit(self.features / spread, self.rewards / unit, sample_weight=precisions)
        self.weights = regression.coef_ / spread * unit

    def _log(self, rewards: np.ndarray, errors: np.ndarray) -> None:
        self.metrics = {"loss": float((errors**2).mean() / max((rewards**2).mean(), 1e-24))}
        if rewards.var() > 0:
            self.metrics["r2"] = float(1.0 - (errors**2).mean() / rewards.var())

    def state_dict(self) -> dict[str, Any]:
        """Return everything remembered and learned, as tensors and plain values."""
        arrays = {name: torch.from_numpy(getattr(self, name).copy()) for name in _ARRAYS}
        return {"arrays": arrays, "metrics": dict(self.metrics)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        for name, value in state["arrays"].items():
            setattr(self, name, value.numpy().copy())
        self.metrics = dict(state["metrics"])


@lru_cache(maxsize=1)
def _threads() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _credit_features(states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """``(N, d)`` states, ``(N, a)`` actions to ``(N, 2 a (1 + d + d (d + 1) / 2))`` monomials, 0 for the action 0."""
    rows, columns = np.triu_indices(states.shape[1])
    monomials = np.concatenate([np.ones((len(states), 1)), states, states[:, rows] * states[:, columns]], axis=1)
    powers = np.concatenate([actions, actions**2], axis=1)
    return (powers[:, :, None] * monomials[:, None, :]).reshape(len(states), -1)
