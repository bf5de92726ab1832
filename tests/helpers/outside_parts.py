"""Parts of a user's own, as a module outside the package defines them."""

from __future__ import annotations

import torch
from stable_baselines3 import PPO
from torch import Tensor

from agents.rules.base import Rule
from rlkd_env.credit import Calibrator
from rlkd_env.instances import InstanceOutputs, Temperature, feature
from rlkd_env.methods import KD
from rlkd_env.runs import DistillationRun, Measurement
from rlkd_env.runs.reward import reward


class HalfKD(KD):
    """KD with half the weight."""

    def __init__(self, kd_weight: float = 0.45) -> None:
        super().__init__(kd_weight=kd_weight)


class ByMargin(Rule):
    """A rule with an option that is a temperature, and one that comes from the run."""

    temperature_options = ("start",)
    from_run = ("num_classes",)

    def __init__(self, low: float, start: float = 2.0, num_classes: int | None = None) -> None:
        super().__init__()
        self.low, self.start, self.num_classes = low, start, num_classes

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        return Temperature.shared(self.low + self.start * outputs.teacher_probabilities.amax(dim=-1))


class Spread(Calibrator):
    """A calibrator that credits an instance with how far its temperature is from the mean."""

    forwards_images = False
    optimizers = None

    def before_update(self, run: DistillationRun, temperature: Temperature) -> None:
        self.credit = temperature.student - temperature.student.mean()


class MyPPO(PPO):
    """An agent of one's own."""


@feature(0.0, 1.0)
def teacher_peak(outputs: InstanceOutputs) -> Tensor:
    """Largest probability of the teacher."""
    return outputs.teacher_probabilities.amax(dim=-1)


@reward(needs_probe=True)
def worst_probe_loss(measurement: Measurement) -> Tensor:
    """Probe loss, with an offset that cancels."""
    return measurement.evaluate_probe().loss + torch.ones(())


NOT_A_PART = 3
