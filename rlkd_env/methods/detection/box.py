"""Box regression that is bounded by the teacher's (Chen et al., NeurIPS 2017, equation 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlkd_env.data.splits import TaskName
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import boxes_of
from rlkd_env.methods.feature_method import Addition
from rlkd_env.utils.options import NonNegative


def bounded_loss(student: Tensor, teacher: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Return the squared errors ``(N,)`` of boxes ``(N, 4)`` that are not better than the teacher's by the margin.

    That is ‖R_s - y‖² where ‖R_s - y‖² + m > ‖R_t - y‖², and 0 elsewhere. The teacher's box is no target, because it
    may point away from the real one; its error is a bound, beyond which the student has nothing to learn from it.
    """
    own, bound = ((boxes - targets).square().sum(dim=-1) for boxes in (student, teacher))
    return torch.where(own + margin > bound, own, 0.0)


def bins_of(detector: nn.Module) -> int:
    """Return the number of bins of a detector's distributions of edges, or 0 if its head gives numbers."""
    return int(getattr(detector.get_submodule("roi_heads.box_predictor"), "bins", 0))


class BoundedBoxes(Addition):
    """KD + ``box_weight`` · :func:`bounded_loss` of the regions that hold an object.

    Boxes are in the code of the detector's head, relative to their region, as in the head's own loss, which stays as it
    is. As that one, the term is a sum over the four numbers of a box and a mean over all drawn regions. There is no
    public code of the authors. Their region proposal network gets the same term; here the teacher's is not used. Their
    weight of the background in the classes' term (1.5) is left out, and so are their hints, which ``fpn`` has. The
    paper names no margin; 0 is where student and teacher err alike.

    Args:
        task_weight: The weight of the task's own loss.
        kd_weight: The weight of KD's KL term.
        box_weight: The weight ν of the term.
        margin: By how much better than the teacher's squared error m the student's must be to be left alone.
        temperature_squared: Whether the KL term carries the factor T_student · T_teacher.
    """

    tasks: tuple[TaskName, ...] = ("detection",)

    def __init__(
        self,
        task_weight: NonNegative = 1.0,
        kd_weight: NonNegative = 1.0,
        box_weight: NonNegative = 0.5,
        margin: NonNegative = 0.0,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(task_weight, kd_weight, temperature_squared)
        self.box_weight, self.margin = box_weight, margin

    def check_networks(self, student: nn.Module, teacher: nn.Module) -> None:
        """Check that both heads give boxes in the same code."""
        if bool(bins_of(student)) != bool(bins_of(teacher)):
            raise UsageError(
                "method 'box' compares boxes in one code: give both detectors an option box_bins, or neither of them"
            )

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``box`` ``(N,)``, 0 for the background."""
        boxes, is_object = boxes_of(outputs), outputs.labels > 0
        targets = torch.where(is_object.unsqueeze(-1), boxes.targets, boxes.student.detach())  # a background's are huge
        loss = bounded_loss(boxes.student, boxes.teacher, targets, self.margin)
        return {"box": self.box_weight * is_object * loss}
