"""Self-supervised knowledge distillation using singular value decomposition (Lee et al., arXiv 1807.06819)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod, at_least_float32
from rlkd_env.methods.maps import at_smaller_size, shapes_of_stages, stages_of
from rlkd_env.utils.options import Count, NonNegative

_FURTHER = 3
"""So many vectors more of the student are looked at for those that are most like the teacher's."""
_WIDTH = 8.0


def singular_vectors(maps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the first singular values ``(N, count)`` and right singular vectors ``(N, width, count)`` of maps.

    The matrix of an instance has a row for each channel and row of its map ``(channels, height, width)``. Values are
    scaled to a norm of 1; what has no gradient, because two singular values are equal, has a gradient of 0.
    """
    matrix = at_least_float32(maps).flatten(start_dim=1, end_dim=2)
    if matrix.requires_grad:
        matrix = matrix * 1.0  # the hook is this tensor's alone
        matrix.register_hook(lambda gradient: gradient.nan_to_num(0.0, 0.0, 0.0))
    _, values, vectors = torch.linalg.svd(matrix, full_matrices=False)
    vectors = vectors.transpose(1, 2)[:, :, :count]
    return F.normalize(values[:, :count], dim=1), F.normalize(vectors, dim=1)


def correlations_loss(maps: list[tuple[Tensor, Tensor]], count: int) -> Tensor:
    """Return the squared differences ``(N,)`` of the correlations between the singular vectors of neighbouring stages.

    The maps are ``(N, channels, height, width)`` of student and teacher. The student's vectors are those that are most
    like the teacher's, with the same sign, and both are weighted by the teacher's singular values. A correlation is
    exp(-(a - b)² / 8) of an entry a of a vector and an entry b of the one of the stage before.
    """
    losses: list[Tensor] = []
    before: tuple[Tensor, Tensor] | None = None
    for student_map, teacher_map in maps:
        student_map, teacher_map = at_smaller_size(student_map, teacher_map)
        values, teacher = singular_vectors(teacher_map, count)
        teacher = teacher * torch.where(teacher.sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
        student = _aligned(singular_vectors(student_map, count + _FURTHER)[1], teacher)
        student, teacher = student * values.unsqueeze(1), teacher * values.unsqueeze(1)
        if before is not None:
            difference = _correlations(student, before[0]) - _correlations(teacher, before[1])
            losses.append(difference.square().sum(dim=(1, 2, 3)))
        before = student, teacher
    return torch.stack(losses).sum(dim=0)


class KDSVD(FeatureMethod):
    """KD + ``feature_weight`` · the difference of the correlations of singular vectors of neighbouring stages.

    As in mdistiller the matrix of an image is (channels · height) x width, so that channels may differ. A singular
    vector has no sign of its own: the teacher's get a positive sum here, elsewhere that which LAPACK happens to give.
    The decomposition of small matrices is slow, on a GPU more so, and waits for it.

    Args:
        vectors: The number of the teacher's singular vectors.

    Raises:
        UsageError: If the networks have not two stages in common.
    """

    waits_for_device = True

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        feature_weight: NonNegative | None = None,
        vectors: Count = 1,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        if len(shapes_of_stages(pair, "kdsvd")) < 2:
            raise UsageError("method 'kdsvd' compares neighbouring stages: choose networks with two stages or more")
        self.vectors = vectors

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``kdsvd`` ``(N,)``."""
        loss = correlations_loss(stages_of(*features_of(outputs)), self.vectors)
        return {"kdsvd": self.feature_weight * loss}


def _aligned(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the student's vectors ``(N, width, k)`` that are most like the teacher's, with the teacher's sign."""
    cosines = student.transpose(1, 2) @ teacher
    sizes = cosines.abs()
    return student @ torch.where(sizes == sizes.amax(dim=1, keepdim=True), cosines.sign(), 0.0)


def _correlations(vectors: Tensor, before: Tensor) -> Tensor:
    return (-(vectors.unsqueeze(2) - before.unsqueeze(1)).square() / _WIDTH).exp()
