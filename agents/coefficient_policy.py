"""A policy that chooses a rule's coefficients for every batch: a few numbers, readable, and at home on any task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agents.policy_files import read_policy, write_policy
from rlkd_env.coefficients import CoefficientRule
from rlkd_env.outputs import InstanceOutputs
from rlkd_env.temperature import Temperature

KIND = "coefficients"


class CoefficientPolicy(nn.Module):
    """Context of a run in, coefficients of its batch's temperatures out.

    The coefficients are chosen anew for every batch, from what is at hand there: progress, the batch's loss and the
    means of its features. An agent that has learned to hold them for several updates sees the same figures, only less
    often. Nothing is kept from batch to batch.

    Args:
        layers: network from contexts ``(K, d)`` to coefficients ``(K, n)``.
        rule: what the coefficients are of.

    Example:
        >>> policy = load_policy("pretrained")  # doctest: +SKIP
        >>> temperature = policy.temperatures(student_logits, teacher_logits, labels, progress)  # doctest: +SKIP
    """

    def __init__(self, layers: Sequence[nn.Module], rule: CoefficientRule) -> None:
        super().__init__()
        self.network = nn.Sequential(*layers)
        self.rule = rule
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def coefficients(self, outputs: InstanceOutputs) -> Tensor:
        """Return the coefficients ``(K, n)`` for the batches of K runs."""
        return self.network(self.rule.context(outputs))

    @torch.no_grad()
    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Choose the temperatures of a batch of a run, or of several runs at once."""
        inputs = self.rule.inputs(outputs)
        coefficients = self.network(self.rule.context(outputs, inputs))
        return Temperature.shared(self.rule.temperatures(coefficients, outputs, inputs))

    def temperatures(
        self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, progress: float = 0.0
    ) -> Tensor:
        """Choose the temperatures of a batch in any KD code.

        Args:
            student_logits: ``(N, C)``.
            teacher_logits: ``(N, C)``.
            labels: ``(N,)`` integer classes.
            progress: share of the training that is over, in ``[0, 1]``.

        Returns:
            ``(N,)``.
        """
        return self(InstanceOutputs(student_logits, teacher_logits, labels, progress)).student

    def save(self, folder: Path | str) -> None:
        """Write ``policy.safetensors`` and ``policy.json`` into a folder, each atomically."""
        rule = {"features": list(self.rule.features), "low": self.rule.low, "high": self.rule.high}
        write_policy(Path(folder), self.network, {"kind": KIND, "rule": rule})

    @classmethod
    def load(cls, path: Path | str) -> CoefficientPolicy:
        """Read a saved policy; nothing is unpickled.

        Args:
            path: the folder, or one of its two files.

        Raises:
            UsageError: if a file is missing, damaged, of another format or kind, or does not belong to the other.
        """

        def create(layers: Sequence[nn.Module], description: dict[str, Any]) -> CoefficientPolicy:
            rule = description["rule"]
            return cls(layers, CoefficientRule(tuple(rule["features"]), rule["low"], rule["high"]))

        return read_policy(path, KIND, create)
