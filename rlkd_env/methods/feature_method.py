"""The base classes of the KD methods that are KD's term plus one of their own, most of which compare features."""

from __future__ import annotations

import torch
from torch import Tensor

from rlkd_env.data.splits import TaskName
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.base import Pair
from rlkd_env.methods.logits.kd import KD
from rlkd_env.utils.options import NonNegative


class Addition(KD):
    """KD plus terms of its own, which are all that it adds to other methods (``dkd+rkd``)."""

    is_addition = True

    def __init__(self, task_weight: float, kd_weight: float, temperature_squared: bool) -> None:
        super().__init__(task_weight, kd_weight, temperature_squared)
        self.uses_temperature = kd_weight != 0

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return KD's KL term ``(N,)``, or no term if its weight is 0."""
        return super().logit_losses(outputs, temperature) if self.kd_weight else {}


class FeatureMethod(Addition):
    """KD + ``feature_weight`` · a comparison of features that does not depend on the temperatures.

    The arguments mean the same in every subclass; subclasses document only what they add.

    Args:
        pair: The networks and the classes of the training images.
        task_weight: The weight of the task's own loss.
        kd_weight: The weight of KD's KL term. At 0 the term is not computed and temperatures have no effect.
        feature_weight: The weight of the method's own term; by default the ``published_weight`` of the method.
        temperature_squared: Whether the KL term carries the factor T_student · T_teacher.
    """

    uses_features = True
    tasks: tuple[TaskName, ...] = ("classification",)
    published_weight = 1.0

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        feature_weight: float | None = None,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(task_weight, kd_weight, temperature_squared)
        self.feature_weight = self.published_weight if feature_weight is None else feature_weight
        self.prepare(pair)

    def prepare(self, pair: Pair) -> None:
        """Check the networks and create the method's own parameters."""


def require_detectors(pair: Pair, method: str) -> int:
    """Check that the networks are detectors and return the number of object classes."""
    if pair.object_classes is None:
        raise UsageError(
            f"method {method!r} compares detectors: choose a data set with boxes, or a method such as kd, dkd or vid"
        )
    return pair.object_classes


def at_least_float32(values: Tensor) -> Tensor:
    """Return values in float32 or finer, because similarities within a batch differ by less than half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
