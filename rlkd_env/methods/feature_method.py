"""The base class of the KD methods that compare features: KD's term plus one of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from rlkd_env.data.splits import TaskName
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.base import Pair
from rlkd_env.methods.kd import KD


class FeatureMethod(KD):
    """KD + ``feature_weight`` · a comparison of features that does not depend on the temperatures.

    The arguments below mean the same in every subclass; subclasses document only what they add. All except this
    base class also take the ``pair`` of networks that they compare.

    Args:
        task_weight: The weight of the task's own loss.
        kd_weight: The weight of KD's KL term. At 0 the term is not computed and temperatures have no effect.
        feature_weight: The weight of the subclass's own term.
        temperature_squared: Whether the KL term carries the factor T_student · T_teacher.
    """

    uses_features = True
    tasks: tuple[TaskName, ...] = ("classification",)

    def __init__(self, task_weight: float, kd_weight: float, feature_weight: float, temperature_squared: bool) -> None:
        super().__init__(task_weight, kd_weight, temperature_squared)
        self.feature_weight = feature_weight
        self.uses_temperature = kd_weight != 0

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return KD's KL term ``(N,)``, or no term if its weight is 0."""
        return super().logit_losses(outputs, temperature) if self.uses_temperature else {}


def require_stages(pair: Pair, method: str) -> None:
    """Check that both networks expose feature maps.

    Raises:
        UsageError: If one of them exposes none.
    """
    for network, shapes in (("student", pair.student), ("teacher", pair.teacher)):
        if not shapes.stages:
            raise UsageError(f"method {method!r} needs networks with feature maps; the {network} has none")


def require_detectors(pair: Pair, method: str) -> int:
    """Check that the networks are detectors and return the number of object classes.

    Raises:
        UsageError: If the networks classify whole images.
    """
    if pair.object_classes is None:
        raise UsageError(
            f"method {method!r} compares detectors: choose a data set with boxes, or a method such as kd, dkd or vid"
        )
    return pair.object_classes


def at_least_float32(values: Tensor) -> Tensor:
    """Return values in float32 or finer, because similarities within a batch differ by less than half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
