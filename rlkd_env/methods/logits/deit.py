"""Distillation through a token of its own (Touvron et al., ICML 2021, arXiv 2012.12877)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rlkd_env.data.splits import TaskName
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.logits.kd import KD
from rlkd_env.utils.options import NonNegative


class DeiT(KD):
    """``task_weight`` · cross-entropy of the class token + ``kd_weight`` · distillation of the distillation token.

    The student is a vision transformer with two learned tokens and a linear head for each: (N, C) logits of the class
    token, which learn the labels, and (N, C) of the distillation token, which learn from the teacher. Soft, that is
    T² · KL(teacher ‖ distillation token) with a temperature for every instance (equation 2 of the paper); hard, the
    cross-entropy to the class that the teacher finds most likely (equation 3), in which no temperature is. Measured and
    saved, the student's logits are the mean of both heads. States, rules and agents see the distillation token's.

    Weights of 1/2 are those of the authors' code and of equation 3. The authors' code divides the soft term by N · C,
    as older versions of PyTorch did; here it is the mean over instances of a sum over classes, C times as much. It
    leaves T² away nowhere, and neither head is smoothed here unless the recipe smooths labels, which goes for the
    class token alone, as there.

    Args:
        task_weight: The weight of the class token's cross-entropy.
        kd_weight: The weight of the distillation token's term.
        hard: Whether that term is the cross-entropy to the teacher's class in place of the KL divergence.
        temperature_squared: Whether the KL term carries the factor T_student · T_teacher, or the temperatures' own
            ``factor`` if they have one.
    """

    uses_two_heads = True
    tasks: tuple[TaskName, ...] = ("classification",)

    def __init__(
        self,
        task_weight: NonNegative = 0.5,
        kd_weight: NonNegative = 0.5,
        hard: bool = False,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(task_weight, kd_weight, temperature_squared)
        self.hard = hard
        self.uses_temperature = not hard

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return the KL term ``(N,)``, or no term if distillation is hard."""
        return {} if self.hard else super().logit_losses(outputs, temperature)

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``hard`` ``(N,)`` if distillation is hard."""
        if not self.hard:
            return {}
        loss = F.cross_entropy(outputs.student_logits, outputs.teacher_logits.argmax(dim=-1), reduction="none")
        return {"hard": self.kd_weight * loss}
