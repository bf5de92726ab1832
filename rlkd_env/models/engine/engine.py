"""How networks are computed: precision, memory format, capturing, and folding of a frozen teacher's batch norms."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.models.engine.folding import example_images, fold_batch_norms, fuse_activations
from rlkd_env.models.engine.precision import has_same_gradients
from rlkd_env.models.taps.features import Features, forward_with_features
from rlkd_env.utils.choices import MemoryFormat, Precision
from rlkd_env.utils.notices import tell


@dataclass(frozen=True)
class Engine:
    """How teacher and student are computed in training; evaluations are made by the :attr:`exact` one.

    Attributes:
        device: The device of the networks.
        precision: The precision of the products in a forward and its backward; weights and losses stay in float32.
        channels_last: Whether convolutional networks and their images are stored channels-last.
        captured: Whether updates are captured as CUDA graphs where they can be.
    """

    device: torch.device
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    captured: bool = False

    @property
    def exact(self) -> Engine:
        """The same engine in float32, for what is told of a network: accuracies, losses and detections."""
        return replace(self, precision="float32")

    def prepare(self, network: nn.Module) -> nn.Module:
        """Move a network to the device and into the memory format, and return it."""
        network = network.to(self.device)
        return network.to(memory_format=torch.channels_last) if self.channels_last else network

    def freeze(self, teacher: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
        """Return a teacher without gradients, with its batch norms folded into its convolutions if possible.

        On a GPU its activations are computed along with its convolutions, too. The given teacher is put into evaluation
        mode; anything else is changed in a copy only.
        """
        folded = fold_batch_norms(teacher.eval().requires_grad_(False), image_shape)
        if folded is teacher and self.channels_last:
            folded = copy.deepcopy(teacher)
        frozen = self.prepare(folded).eval()  # a copy of a traced network is in training mode
        if self.device.type != "cuda" or folded is teacher:
            return frozen
        with self.autocast():
            return fuse_activations(frozen, self.images(example_images(frozen, image_shape)))

    def images(self, images: Tensor) -> Tensor:
        """Convert images ``(N, channels, height, width)`` to the memory format."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def autocast(self) -> torch.autocast:
        """Return the context in which networks compute in the engine's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def forward_with_features(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Features]:
        """Return a network's logits ``(N, C)`` and features in float32."""
        logits, features = self.computed_with_features(network, images)
        if self.precision == "float32":
            return logits, features
        return logits.float(), features.to(torch.float32)

    def computed_with_features(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Features]:
        """Return logits ``(N, C)`` and features as :meth:`forward_with_features` does, in the engine's precision."""
        with self.autocast():
            return forward_with_features(network, images)

    def forward(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return a network's logits ``(N, C)`` in float32 for images that :meth:`images` has prepared."""
        with self.autocast():
            logits: Tensor = network(images)
        return logits if self.precision == "float32" else logits.float()


def choose_engine(
    device: torch.device,
    network: nn.Module,
    precision: Precision = "auto",
    memory_format: MemoryFormat = "auto",
    captured: bool = True,
    images: Tensor | None = None,
) -> Engine:
    """Return the requested engine, with ``"auto"`` resolved for a device and a student.

    ``"auto"`` is bfloat16 for convolutional networks on devices that multiply it natively, and channels-last for
    convolutional networks; ``docs/performance.md`` says what each brings. On a CPU gradients on the ``images``, if some
    are given, are computed in both precisions, and where those in bfloat16 are wrong it is float32, with a line. Only
    CUDA devices capture.

    Raises:
        UsageError: If a choice is unknown.
    """
    if precision not in get_args(Precision):
        raise unknown_name("precision", precision, get_args(Precision))
    if memory_format not in get_args(MemoryFormat):
        raise unknown_name("memory format", memory_format, get_args(MemoryFormat))
    is_convolutional = any(isinstance(module, nn.Conv2d) for module in network.modules())
    is_reduced = precision == "bfloat16" or (precision == "auto" and is_convolutional and has_fast_bfloat16(device))
    is_channels_last = memory_format == "channels_last" or (memory_format == "auto" and is_convolutional)
    if is_reduced and precision == "auto" and device.type == "cpu" and images is not None:
        is_reduced = has_same_gradients(network, images, is_channels_last)
        if not is_reduced:
            tell("this network's gradients are wrong in bfloat16 on this CPU, so it is computed in float32")
    precision = "bfloat16" if is_reduced else "float32"
    return Engine(device, precision, is_channels_last, captured and device.type == "cuda")


def select_device(name: str) -> torch.device:
    """Return the device of this name, or the best one there is for ``"auto"``.

    Raises:
        UsageError: if this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name!r} is not available: {str(error).splitlines()[0]}") from None
    if device.type == "cpu" and device.index:
        raise UsageError(f"device {name!r} is not available: there is only one cpu")
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())
