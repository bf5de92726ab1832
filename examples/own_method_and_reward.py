"""Parts of your own, without a change to the package: a method, a feature, a reward and a rule.

Run ``python examples/own_method_and_reward.py``; ``--small`` makes a few epochs. From the folder ``examples`` the same
parts work on the command line: ``rlkd distill --rule own_method_and_reward:ByMargin``.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from agents.rules import Rule
from experiments import distill
from rlkd_env.instances import InstanceOutputs, Temperature, feature
from rlkd_env.methods import Method
from rlkd_env.runs.reward import Measurement, reward

EPOCHS = 4 if "--small" in sys.argv else 120


class LogitMatching(Method):
    """Cross-entropy, and the squared distance of the logits, each divided by its temperature."""

    def __init__(self, task_weight: float = 0.5, logit_weight: float = 0.5) -> None:
        super().__init__(task_weight)
        self.logit_weight = logit_weight

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return the terms that the temperatures change, by name, each ``(N,)``."""
        student = outputs.student_logits / temperature.student[:, None]
        teacher = outputs.teacher_logits / temperature.teacher[:, None]
        return {"logits": self.logit_weight * (student - teacher).square().mean(dim=-1)}


@feature(low=0.0, high=1.0)
def teacher_peak(outputs: InstanceOutputs) -> Tensor:
    """The teacher's largest probability, ``(N,)``."""
    return outputs.teacher_probabilities.amax(dim=-1)


@reward(needs_probe=True)
def root_probe_loss(measurement: Measurement) -> Tensor:
    """What should fall: the square root of the loss on the probe images."""
    return measurement.evaluate_probe().loss.sqrt()


class ByMargin(Rule):
    """Instances of which the teacher is certain get the high temperature, others the low one."""

    def __init__(self, low: float = 2.0, high: float = 6.0) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Return the temperatures of N instances."""
        certain = outputs.teacher_probabilities.amax(dim=-1) > 0.95
        low, high = (torch.full_like(outputs.teacher_logits[:, 0], value) for value in (self.low, self.high))
        return Temperature.shared(torch.where(certain, high, low))


def main() -> None:
    """Distil with the rule, then let an agent learn with the method, the feature and the reward."""
    by_rule = distill("auto", "auto", "digits", temperature=ByMargin, epochs=EPOCHS, progress=False)
    print("rule of our own:", by_rule.test_accuracy)
    learned = distill(
        "auto",
        "auto",
        "digits",
        temperature="ppo",
        method=LogitMatching,
        features=["student_performance", teacher_peak, "progress"],
        reward=root_probe_loss,
        warmup_epochs=1,
        epochs=EPOCHS,
        progress=False,
    )
    print("PPO with method, feature and reward of our own:", learned.test_accuracy)


if __name__ == "__main__":
    main()
