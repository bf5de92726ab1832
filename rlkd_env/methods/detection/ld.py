"""Localization distillation: KD of where the edges of boxes lie (Zheng et al., CVPR 2022, arXiv 2102.12252)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.data.splits import TaskName
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs, log_softmax
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.base import boxes_of
from rlkd_env.methods.detection.box import bins_of
from rlkd_env.methods.feature_method import Addition
from rlkd_env.utils.options import NonNegative, Positive


def edge_loss(
    student_edges: Tensor, teacher_edges: Tensor, temperature: Temperature, temperature_squared: bool = True
) -> Tensor:
    """Return the mean over four edges ``(N,)`` of KL(teacher ‖ student), in nats, of distributions over bins.

    Args:
        student_edges: The student's logits ``(N, 4, bins + 1)``.
        teacher_edges: The teacher's.
        temperature: The temperatures ``(N,)``, those of an instance for all of its edges.
        temperature_squared: Whether to multiply by T_student · T_teacher, or the temperatures' own ``factor``.
    """
    student = log_softmax(student_edges / temperature.student[:, None, None])
    teacher = log_softmax(teacher_edges / temperature.teacher[:, None, None])
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1).mean(dim=-1)
    return temperature.scale(divergence) if temperature_squared else divergence


class LD(Addition):
    """KD + ``ld_weight`` · T² · the mean over the edges of KL(teacher ‖ student) of regions that hold an object.

    Both networks must be detectors whose heads give distributions (``box_bins``). An edge's temperature is
    ``edge_multiple`` times that of its instance: the authors have 10 for edges beside 2 for classes.

    The authors' code takes the mean over the bins, not their sum, so that its loss is this one over the number of bins
    and one. It weighs an anchor by how sure the student is of it and divides by the four edges, not by the number of
    anchors; here the mean is over all drawn regions, as for the head's other losses. Their detectors are dense ones,
    whose anchors around an object (the valuable localization region) get the term too; here regions that are no objects
    do not.

    Args:
        task_weight: The weight of the task's own loss.
        kd_weight: The weight of KD's KL term.
        ld_weight: The weight of the term of the edges.
        edge_multiple: The temperature of an edge, in multiples of its instance's.
        temperature_squared: Whether both terms carry the factor T_student · T_teacher.
    """

    tasks: tuple[TaskName, ...] = ("detection",)

    def __init__(
        self,
        task_weight: NonNegative = 1.0,
        kd_weight: NonNegative = 1.0,
        ld_weight: NonNegative = 0.25,
        edge_multiple: Positive = 5.0,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(task_weight, kd_weight, temperature_squared)
        self.ld_weight, self.edge_multiple = ld_weight, edge_multiple
        self.uses_temperature = True

    def check_networks(self, student: nn.Module, teacher: nn.Module) -> None:
        """Check that the heads of both detectors give distributions over the same bins."""
        bins = bins_of(student), bins_of(teacher)
        if not bins[0] or bins[0] != bins[1]:
            raise UsageError(
                f"method 'ld' compares distributions of the edges of boxes: give both detectors the same box_bins, not "
                f"{bins[0]} for the student and {bins[1]} for the teacher (--student-options box_bins 16, and "
                "--teacher-options or a teacher of rlkd teacher --model-options)"
            )

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return KD's term and ``ld``, each ``(N,)``; the latter is 0 for the background."""
        boxes = boxes_of(outputs)
        if boxes.student_edges is None or boxes.teacher_edges is None:
            raise ValueError("this method needs outputs of detectors that give distributions of edges")
        own = temperature.times(self.edge_multiple)
        loss = edge_loss(boxes.student_edges, boxes.teacher_edges, own, self.temperature_squared)
        of_classes = super().logit_losses(outputs, temperature)
        return {**of_classes, "ld": self.ld_weight * (outputs.labels > 0) * loss}
