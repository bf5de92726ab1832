"""Knowledge distillation via adaptive instance normalization (Yang et al., arXiv 2003.04289)."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod
from rlkd_env.methods.maps import shapes_of_stage
from rlkd_env.models.taps.features import forward_from_stage
from rlkd_env.utils.options import NonNegative

_EPSILON = 1e-5


def channel_statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and std over the positions of maps ``(N, channels, h, w)``, each ``(N, channels, 1, 1)``."""
    mean = maps.mean(dim=(-2, -1), keepdim=True)
    variance = (maps - mean).square().mean(dim=(-2, -1), keepdim=True)
    return mean, (variance + _EPSILON).sqrt()


def adaptive_instance_normalization(maps: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Give maps ``(N, channels, h, w)`` the channel statistics ``mean`` and ``std``, each ``(N, channels, 1, 1)``."""
    own_mean, own_std = channel_statistics(maps)
    return (maps - own_mean) / own_std * std + mean


class AdaIN(FeatureMethod):
    """KD + ``feature_weight`` · the teacher's own evaluation of the student's channel statistics.

    A trained 1x1 convolution maps the student's map of a stage to the teacher's width. The mean and std of its channels
    replace those of the teacher's map, and the teacher's remaining layers turn the result into logits. The loss is the
    squared error against the teacher's own logits plus, with ``statistics_weight``, that of the statistics themselves;
    each is a mean over the entries of an instance. Only the abstract of the paper was available, so the form of both
    terms is ours: the squared error of logits is what the same authors use in SRRL.

    A step costs one more forward of the teacher and a backward through the layers behind the stage with respect to
    their input: with three small stages on 32x32 images, on a CPU, twice the time of KD. The layers before the stage
    build no graph, and the teacher's weights get no gradient; the teacher is not part of the method's state.

    Args:
        feature_weight: The weight of the squared error of the logits.
        statistics_weight: The weight of the squared errors of the statistics.
        stage: The stage of both networks' taps. The default, the last but one, leaves the teacher a whole stage to
            evaluate with; behind the last (-1) there are mostly average pooling and the classifier, which see no std.

    Raises:
        UsageError: If a network has no such stage.
    """

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        feature_weight: NonNegative = 1.0,
        statistics_weight: NonNegative = 1.0,
        stage: int = -2,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        student, teacher = shapes_of_stage(pair, "adain", stage)
        self.statistics_weight, self.stage = statistics_weight, stage
        self.adapter = nn.Conv2d(student[0], teacher[0], kernel_size=1)
        self._pair = pair  # not a module, so the teacher does not become a part of this one

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the terms ``adain_logits`` and ``adain_statistics``, each ``(N,)``."""
        student, teacher = features_of(outputs)
        if outputs.images is None:
            raise ValueError("this method needs outputs with images")
        mean, std = channel_statistics(self.adapter(student.stages[self.stage]))
        replace = partial(adaptive_instance_normalization, mean=mean, std=std)
        evaluated = forward_from_stage(self._pair.teacher_network, outputs.images, self.stage, replace)
        teacher_mean, teacher_std = channel_statistics(teacher.stages[self.stage])
        statistics = (mean - teacher_mean).square() + (std - teacher_std).square()
        return {
            "adain_logits": self.feature_weight * (evaluated - outputs.teacher_logits).square().mean(dim=-1),
            "adain_statistics": self.statistics_weight * statistics.mean(dim=(1, 2, 3)),
        }
