"""How networks are computed, as options; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlkd_env.utils.choices import MemoryFormat, Precision
from rlkd_env.utils.options import Options

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rlkd_env.models.engine import Engine

STUDENT_FILE = "student.safetensors"
"""What the student of a run's best epoch is called in the run's folder."""


@dataclass(frozen=True)
class EngineConfig(Options):
    """Where and how the networks are computed."""

    precision: Precision = "auto"
    """Number format of the networks' products: float32 or bfloat16; auto is bfloat16 for convolutional students where
    the hardware has it and computes the right gradients in it. Evaluations and losses are always in float32;
    a classifier's probe images, whose loss is a reward, are forwarded as its training images are."""
    memory_format: MemoryFormat = "auto"
    """Order of images in memory: contiguous or channels_last; auto is the latter for convolutional students."""
    capture: bool = True
    """Capture updates as CUDA graphs, which a GPU replays several times as fast; what cannot be captured is computed
    without."""
    device: str = "auto"
    """Device such as cpu or cuda:0; auto takes a GPU where there is one."""

    def select_device(self) -> torch.device:
        """Return the device."""
        from rlkd_env.models.engine import select_device

        return select_device(self.device)

    def engine(self, device: torch.device, student: nn.Module, images: torch.Tensor | None = None) -> Engine:
        """Return the engine that computes a student and its teacher on a device; it is tried out on the images."""
        from rlkd_env.models.engine import choose_engine

        return choose_engine(device, student, self.precision, self.memory_format, self.capture, images)
