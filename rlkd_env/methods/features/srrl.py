"""Knowledge distillation via softmax regression representation learning (Yang et al., ICLR 2021)."""

from __future__ import annotations

from torch import Tensor, nn

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod
from rlkd_env.models.taps.features import classifier_of


class SRRL(FeatureMethod):
    """KD + ``feature_weight`` · (MSE(A(f_s), f_t) + MSE(W_t A(f_s), z_t)) on pooled features.

    A is a 1x1 convolution with batch norm and ReLU that maps the student's pooled feature, taken as a map of one
    position, to the teacher's width. W_t is the teacher's frozen classifier, whose output is compared with the
    teacher's own logits; it is not part of the method's state or parameters. Both squared errors are means over the
    entries of an instance. Because batch norm uses the statistics of the batch, the loss of an instance depends on the
    others in it, and a batch needs at least two instances.
    """

    def prepare(self, pair: Pair) -> None:
        """Create the adapter A."""
        convolution = nn.Conv2d(pair.student.pooled, pair.teacher.pooled, kernel_size=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        self.adapter = nn.Sequential(convolution, nn.BatchNorm2d(pair.teacher.pooled), nn.ReLU())
        self._pair = pair  # not a module, so the teacher does not become a part of this one

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the terms ``srrl_feature`` and ``srrl_logits``, each ``(N,)``."""
        student, teacher = features_of(outputs)
        adapted = self.adapter(student.pooled[:, :, None, None]).flatten(start_dim=1)
        judged = classifier_of(self._pair.teacher_network)(adapted)
        return {
            "srrl_feature": self.feature_weight * (adapted - teacher.pooled).square().mean(dim=-1),
            "srrl_logits": self.feature_weight * (judged - outputs.teacher_logits).square().mean(dim=-1),
        }
