"""A policy that chooses a rule's coefficients for every batch: a few numbers, readable, and at home on any task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from agents.learned.network_policy import NetworkPolicy
from rlkd_env.errors import UsageError
from rlkd_env.instances.coefficients import CoefficientRule
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.schedule import described_schedule
from rlkd_env.instances.temperature import Temperature

if TYPE_CHECKING:
    from typing_extensions import Self


class CoefficientPolicy(NetworkPolicy):
    """Context of a run in, coefficients of its batch's temperatures out.

    The coefficients are chosen anew for every batch, from what is at hand there: progress, and how near the student is
    to the teacher. An agent that has learned to hold them for several updates sees the same figures, only less often.
    Nothing is kept from batch to batch.

    Args:
        layers: network from contexts ``(K, d)`` to coefficients ``(K, n)``.
        rule: what the coefficients are of.

    Example:
        >>> from agents.learned.loading import load_policy
        >>> policy = load_policy("pretrained")
        >>> student_logits, teacher_logits, labels = torch.randn(64, 10), torch.randn(64, 10), torch.arange(64) % 10
        >>> policy.choose(student_logits, teacher_logits, labels, progress=0.5).student.shape
        torch.Size([64])
    """

    kind = "coefficients"

    def __init__(self, layers: Sequence[nn.Module], rule: CoefficientRule) -> None:
        super().__init__(layers)
        self.rule = rule

    @torch.no_grad()
    def coefficients(self, outputs: InstanceOutputs) -> Tensor:
        """Return the coefficients ``(K, n)`` for the batches of K runs."""
        return self.network(self.rule.context(outputs))

    @torch.no_grad()
    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Choose the temperatures of a batch of a run, or of several runs at once."""
        return self.rule.temperature(self.coefficients(outputs), outputs)

    def settings(self) -> dict[str, Any]:
        """Return the rule as plain values, the whole schedule among them, whose defaults may change."""
        rule = self.rule
        return {"rule": {"features": list(rule.features), "width": rule.width, **rule.schedule.description()}}

    @classmethod
    def of_settings(cls, layers: Sequence[nn.Module], settings: dict[str, Any]) -> Self:
        """Make the policy of its layers and :meth:`settings`.

        Raises:
            UsageError: if it is that of a policy whose temperatures are not around a schedule, as before version 0.3.
        """
        rule = settings["rule"]
        if "low" in rule:
            raise UsageError(
                "this policy was saved before version 0.3, whose coefficients meant something else: train it again "
                "with rlkd train-agent, or use the policy of the package (pretrained)"
            )
        schedule = {key: value for key, value in rule.items() if key not in ("features", "width")}
        return cls(layers, CoefficientRule(tuple(rule["features"]), rule["width"], **described_schedule(schedule)))
