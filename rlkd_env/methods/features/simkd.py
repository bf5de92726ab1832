"""Knowledge distillation with the reused teacher classifier (Chen et al., CVPR 2022, arXiv 2203.14001)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod
from rlkd_env.methods.maps import mean_by_instance, pooled_to, require_stages
from rlkd_env.models.taps.features import classifier_of
from rlkd_env.models.taps.reused_classifier import FrozenLinear, Head, ReusedClassifier
from rlkd_env.utils.options import Count, NonNegative

_FACTOR = 2


class SimKD(FeatureMethod):
    """KD + ``feature_weight`` · the mean squared difference of the teacher's last map and the student's projected one.

    The method changes the student: behind its last map (N, channels, h, w) comes a projector P of 1x1, 3x3 and 1x1
    convolutions, each with batch norm and ReLU, to the teacher's D channels, and behind the mean of P's map (N, D) the
    teacher's own classifier, whose weights never change. What the student had between its last map and its logits is
    left out, as nothing would train it (equation 2 of the paper, and figure 2). So the student that is trained,
    measured and saved holds P and that classifier. Where the student's map is larger than the teacher's it is
    average-pooled before P, and the teacher's is before the comparison where that is larger, each in height and width.

    The authors train on the squared error alone (their weights 0, 0 and 1); with KD's term, whose temperatures act on
    the logits of the reused classifier, these are the method's defaults here as everywhere. In their code a KL term
    would act on the student's former classifier, which they throw away. Because of the batch norms, the loss of an
    instance depends on the others in its batch.

    Args:
        factor: How many times fewer channels than the teacher's map the projector has in the middle.

    Raises:
        UsageError: If the student was not changed so (:func:`~rlkd_env.methods.change_of_student`), or a network does
            not fit: the teacher needs a linear classifier that reads the mean of its last map, the student a last map
            whose mean it takes.
    """

    changes_student = True

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        feature_weight: NonNegative | None = None,
        factor: Count = _FACTOR,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        self.factor = factor

    @classmethod
    def change_of_student(cls, pair: Pair, options: Mapping[str, Any]) -> ReusedClassifier:
        """Return what gives every student the projector and a copy of the teacher's classifier."""
        classifier = _classifier(pair)
        require_stages(pair, "simkd")
        (_, *own), (width, *others) = pair.student.stages[-1], pair.teacher.stages[-1]
        size = min(own[0], others[0]), min(own[1], others[1])
        head = Head(width, options.get("factor", _FACTOR), None if size == tuple(own) else size)
        if pair.image_shape is None:
            raise ValueError("a student is changed for images of a shape that the pair must name: see Pair.of")
        image_shape = (pair.image_shape[0], pair.image_shape[1], pair.image_shape[2])
        bias = None if classifier.bias is None else classifier.bias.detach().cpu()
        return ReusedClassifier(head, classifier.weight.detach().cpu(), bias, image_shape)

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``simkd`` ``(N,)``."""
        student, teacher = features_of(outputs)
        if not isinstance(student.classifier, FrozenLinear):
            raise UsageError(
                "method 'simkd' trains a student with a projector and the teacher's classifier, which this one lacks: "
                "change it before (change_of_student), as a run does"
            )
        projected = student.stages[-1]
        target = pooled_to(teacher.stages[-1], (projected.shape[-2], projected.shape[-1]))
        return {"simkd": self.feature_weight * mean_by_instance((projected - target).square())}


def _classifier(pair: Pair) -> nn.Linear:
    """Return the teacher's classifier.

    Raises:
        UsageError: If it is no linear layer, or does not read the mean of the teacher's last map.
    """
    classifier = classifier_of(pair.teacher_network)
    if not isinstance(classifier, nn.Linear):
        kind = type(classifier).__name__
        raise UsageError(f"method 'simkd' reuses the teacher's classifier, which is no linear layer but a {kind}")
    if not pair.teacher.pools_last_map:
        raise UsageError(
            "method 'simkd' reuses the teacher's classifier, which does not read the mean of the teacher's last map: "
            "choose another teacher, such as resnet32x4"
        )
    return classifier
