"""Rules that follow the run's progress, for all instances alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from agents.rules.base import Rule, check_temperature, repeat
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.schedule import AnnealedTemperature
from rlkd_env.instances.temperature import Temperature
from rlkd_env.utils.choices import ANNEAL_SHAPE


class LinearSchedule(Rule):
    """T = first + progress · (last - first), for all instances alike.

    Args:
        first: temperature of the run's first update.
        last: temperature at its end.
    """

    temperature_options = ("first", "last")

    def __init__(self, first: float, last: float) -> None:
        super().__init__()
        self.first, self.last = check_temperature(first), check_temperature(last)

    def share(self, progress: float) -> float:
        """Return how far the temperature has gone from first to last, from 0 to 1."""
        return progress

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Return the schedule's temperature N times."""
        temperature = self.first + self.share(float(outputs.progress)) * (self.last - self.first)
        return Temperature.shared(repeat(temperature, outputs))


class CosineSchedule(LinearSchedule):
    """T = first + ½ (1 - cos(π · progress)) · (last - first), for all instances alike."""

    def share(self, progress: float) -> float:
        """Return how far the temperature has gone from first to last, from 0 to 1."""
        return (1.0 - math.cos(math.pi * progress)) / 2.0


class Anneal(Rule):
    """log T = (1 - share) · log first + share · log last: soft targets early, sharp ones late; share is the progress.

    Temperatures with the suffix s are multiples of the mean standard deviation of the teacher's logits in the batch,
    so that the defaults suit any number of classes and any teacher. Around T each image has temperatures of its own,
    the teacher's and the student's: T times the power ``own_spread`` of its logits' deviation over that mean, which
    lies between plain KD and LSKD's standardised logits. The power sets in over the first fifth of the run.

    Relatives are Annealing-KD (Jafari et al., EACL 2021), whose temperature falls linearly, :class:`DTS`, and
    :class:`~agents.rules.published.LSKD`.

    Args:
        first: temperature of the run's first update; None takes 3s, and for a detector's regions 0.5.
        last: temperature at its end; None takes 0.35s, and for regions 0.5 too, so that theirs do not fall.
        shape: ``linear``, or ``cosine``, where the share is ½ (1 - cos(π · progress)).
        regions: first and last for a detector's regions, apart from those of images: two values, or such as ``2:0.5``.
        cold_start: whether a run of images of fewer than ten epochs, or twelve updates for each class, starts colder,
            at first · √(min(1, epochs / 10) · min(1, updates for each class / 12)). None does so unless ``first`` is
            given.
        own_spread: the power for images, from 0 to 1; None takes 0.5. With 0, and for a detector's regions, all
            temperatures are T.
    """

    def __init__(
        self,
        first: float | str | None = None,
        last: float | str | None = None,
        shape: str = ANNEAL_SHAPE,
        regions: tuple[float | str, float | str] | str | None = None,
        cold_start: bool | None = None,
        own_spread: float | None = None,
    ) -> None:
        super().__init__()
        self.schedule = AnnealedTemperature(first, last, shape, regions, cold_start, own_spread)

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Return the whole schedule, defaults filled in."""
        return self.schedule.description()

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Return the schedule's temperatures."""
        return self.schedule.temperature(outputs)


class DTS(Rule):
    """T = first · ½ (1 + cos(π · progress)), but at least last (Dynamic Temperature Scheduler, arXiv 2511.13767).

    The published code also multiplies by loss / (loss + 1) where that is above 1, which is never so, and smooths T over
    about ten updates; neither is done here. Its values are 8 and 4, and 4 and 2 for standardised logits.

    Args:
        first: temperature of the run's first update, T₀ = T_max.
        last: the least temperature, T_min.
    """

    temperature_options = ("first", "last")

    def __init__(self, first: float = 8.0, last: float = 4.0) -> None:
        super().__init__()
        self.first, self.last = check_temperature(first), check_temperature(last)

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        """Return the schedule's temperature N times."""
        temperature = max(self.last, self.first * (1.0 + math.cos(math.pi * outputs.progress)) / 2.0)
        return Temperature.shared(repeat(temperature, outputs))
