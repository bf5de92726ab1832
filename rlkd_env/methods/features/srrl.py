"""Knowledge distillation via softmax regression representation learning (Yang et al., ICLR 2021)."""

from __future__ import annotations

from torch import Tensor, nn

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod
from rlkd_env.methods.maps import require_stages
from rlkd_env.models.taps.features import classifier_of
from rlkd_env.utils.options import NonNegative


class SRRL(FeatureMethod):
    """KD + ``feature_weight`` · (MSE(A(f_s), f_t) + MSE(W_t A(f_s), z_t)) on pooled features.

    A is a 1x1 convolution with batch norm and ReLU that maps the student's feature to the teacher's width. W_t is the
    teacher's frozen classifier, whose output is compared with the teacher's own logits; it is not part of the method's
    state or parameters. Both squared errors are means over the entries of an instance. Because batch norm uses the
    statistics of the batch, the loss of an instance depends on the others in it, and a batch needs at least two.

    The authors apply A to the student's last map and pool the result; CTKD, whose weights are the defaults, applies it
    to the pooled feature, a map of one position.

    Args:
        on_map: Whether A is applied to the last map, before it is pooled, as the authors do.

    Raises:
        UsageError: If there is no such map.
    """

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        feature_weight: NonNegative | None = None,
        on_map: bool = False,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        if on_map:
            require_stages(pair, "srrl")
        width = pair.student.stages[-1][0] if on_map else pair.student.pooled
        convolution = nn.Conv2d(width, pair.teacher.pooled, kernel_size=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        self.on_map = on_map
        self.adapter = nn.Sequential(convolution, nn.BatchNorm2d(pair.teacher.pooled), nn.ReLU())
        self._pair = pair  # not a module, so the teacher does not become a part of this one

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the terms ``srrl_feature`` and ``srrl_logits``, each ``(N,)``."""
        student, teacher = features_of(outputs)
        maps = student.stages[-1] if self.on_map else student.pooled[:, :, None, None]
        adapted = self.adapter(maps).mean(dim=(2, 3))
        judged = classifier_of(self._pair.teacher_network)(adapted)
        return {
            "srrl_feature": self.feature_weight * (adapted - teacher.pooled).square().mean(dim=-1),
            "srrl_logits": self.feature_weight * (judged - outputs.teacher_logits).square().mean(dim=-1),
        }
