"""Measuring a student after every update without a launch for each operation (CUDA graphs)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rlkd_env.data import ImageSet
from rlkd_env.models.graphs import RecordedFunction, forward_hooks, is_replayable
from rlkd_env.tasks import Evaluation

_MOST_IMAGES = 1024
"""Sets that are larger are measured once an epoch at most, and would need much memory for good."""


class CapturedEvaluation:
    """Measures a student on small sets of images, each of which is captured when it is measured again.

    Args:
        evaluate: measures the student, without waiting for the device.
        student: the student; while hooks wait for its forwards, it is measured plainly.
        device: the device.
    """

    def __init__(self, evaluate: Callable[[ImageSet], Evaluation], student: nn.Module, device: torch.device) -> None:
        self._evaluate, self._device = evaluate, device
        self._modules = tuple(student.modules())
        self._recorded: dict[int, tuple[ImageSet, RecordedFunction]] = {}

    def __call__(self, images: ImageSet) -> Evaluation:
        """Return the figures of the student as it is now."""
        if len(images) > _MOST_IMAGES or not all(map(is_replayable, forward_hooks(self._modules))):
            return self._evaluate(images)

        def figures() -> Tensor:
            found = self._evaluate(images)
            return torch.stack([found.accuracy, found.loss, found.confidence])

        if id(images) not in self._recorded:  # the set is kept, so that its number stays its own
            self._recorded[id(images)] = images, RecordedFunction(figures, self._device)
        return Evaluation(*self._recorded[id(images)][1]())
