"""Knowledge distillation via adaptive instance normalization (Yang et al., arXiv 2003.04289)."""

from __future__ import annotations

from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod, require_stages
from rlkd_env.models.taps.features import forward_from_stage

_EPSILON = 1e-5


def channel_statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over positions, each ``(N, channels, 1, 1)``, of ``(N, channels, h, w)``."""
    mean = maps.mean(dim=(-2, -1), keepdim=True)
    variance = (maps - mean).square().mean(dim=(-2, -1), keepdim=True)
    return mean, (variance + _EPSILON).sqrt()


def adaptive_instance_normalization(maps: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Give maps ``(N, channels, height, width)`` other channel statistics, each ``(N, channels, 1, 1)``."""
    own_mean, own_deviation = channel_statistics(maps)
    return (maps - own_mean) / own_deviation * deviation + mean


class AdaIN(FeatureMethod):
    """KD + ``feature_weight`` · the teacher's own evaluation of the student's channel statistics.

    A trained 1x1 convolution brings the student's map of a stage to the teacher's width; mean and standard deviation
    of its channels replace those of the teacher's map, and the teacher's remaining layers turn the result into logits.
    The loss is the squared error of these against the teacher's own logits, and with ``statistics_weight`` that of the
    statistics themselves, each a mean over the entries of an instance. Of the paper only the abstract could be read,
    which leaves the form of both to us: the squared error of logits is what the same authors use in SRRL.

    A step costs one more forward of the teacher and a backward through its layers behind the stage, by their input
    alone; with three small stages on 32x32 images, on a CPU, twice the time of KD. The layers before the stage build
    no graph, and the teacher's weights get no gradient.

    Args:
        pair: the networks; the teacher is used, but is no part of the method's state or parameters.
        task_weight: weight of the cross-entropy.
        kd_weight: weight of KD's KL term; 0 for none.
        feature_weight: weight of the squared error of the logits.
        statistics_weight: weight of the squared errors of the statistics.
        stage: of both networks' taps. The last but one, by default, leaves the teacher a whole stage to evaluate with;
            behind the last (-1) there are mostly a mean over positions and the classifier, which see no deviation.
        temperature_squared: whether the KL term carries the factor T².

    Raises:
        UsageError: if a network has no such stage.
    """

    def __init__(
        self,
        pair: Pair,
        task_weight: float = 0.1,
        kd_weight: float = 0.9,
        feature_weight: float = 1.0,
        statistics_weight: float = 1.0,
        stage: int = -2,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(task_weight, kd_weight, feature_weight, temperature_squared)
        require_stages(pair, "adain")
        for network, shapes in (("student", pair.student), ("teacher", pair.teacher)):
            count = len(shapes.stages)
            if not -count <= stage < count:
                raise UsageError(f"method 'adain' takes stage {stage}, but the {network} has only {count}: set stage")
        self.statistics_weight = statistics_weight
        self.stage = stage
        self.adapter = nn.Conv2d(pair.student.stages[stage][0], pair.teacher.stages[stage][0], kernel_size=1)
        self._pair = pair  # no module itself, so that the teacher becomes no part of this one

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the terms ``adain_logits`` and ``adain_statistics``, each ``(N,)``."""
        student, teacher = features_of(outputs)
        if outputs.images is None:
            raise ValueError("this method needs outputs with images")
        mean, deviation = channel_statistics(self.adapter(student.stages[self.stage]))
        evaluated = forward_from_stage(
            self._pair.teacher_network,
            outputs.images,
            self.stage,
            lambda teacher_map: adaptive_instance_normalization(teacher_map, mean, deviation),
        )
        teacher_mean, teacher_deviation = channel_statistics(teacher.stages[self.stage])
        statistics = (mean - teacher_mean).square() + (deviation - teacher_deviation).square()
        return {
            "adain_logits": self.feature_weight * (evaluated - outputs.teacher_logits).square().mean(dim=-1),
            "adain_statistics": self.statistics_weight * statistics.mean(dim=(1, 2, 3)),
        }
