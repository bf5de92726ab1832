"""How a network is trained: optimiser, learning-rate schedule, epochs and batch size."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from rlkd_env.errors import UsageError
from rlkd_env.utils.choices import USUAL_MILESTONES, OptimizerName, Precision, ScheduleName
from rlkd_env.utils.options import (
    LATER_OPTIONS,
    Bounds,
    Count,
    NonNegative,
    NonNegativeInt,
    Options,
    OptionValue,
    Positive,
    Seed,
)

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from rlkd_env.data.augmentation import Mixing

TEACHER_FILE = "teacher.safetensors"
"""Name of a teacher's weights in its folder."""


@dataclass(frozen=True)
class Recipe(Options):
    """How the student is trained. The defaults are those of Digits."""

    epochs: Count = 120
    """Passes over the training images."""
    batch_size: Count = 64
    """Images in an update. Each of them is a slot of the vector environment; in detection, each of their proposals."""
    learning_rate: Positive = 0.05
    """Learning rate at the start."""
    momentum: Annotated[float, Bounds(at_least=0, below=1)] = 0.9
    """Momentum of SGD; Adam has its own."""
    weight_decay: NonNegative = 5e-4
    """L2 penalty on all parameters."""
    schedule: ScheduleName = "cosine"
    """Learning-rate schedule: cosine to zero, step (times 0.1 at the milestones) or constant."""
    optimizer: OptimizerName = "sgd"
    """Optimiser: sgd, adam, which short trainings of detectors from scratch need, adamw, whose weight decay is
    decoupled, or dot, SGD with a momentum of its own for the distillation terms."""
    dot_delta: Annotated[float, Bounds(at_least=0, below=1)] = 0.075
    """What dot adds to the momentum for the distillation terms and subtracts from it for the task's own."""
    learning_rate_warmup: NonNegativeInt = 0
    """Epochs in which the learning rate rises linearly from a hundredth, before its schedule; 0 does without."""
    clip_grad_norm: Positive | None = None
    """Greatest norm of the gradient, above which it is scaled down; None never does."""
    label_smoothing: Annotated[float, Bounds(at_least=0, below=1)] = 0.0
    """Share of the labels' probability that is spread over all classes, in the task's own loss; classification only."""
    auxiliary_weight: NonNegative = 0.0
    """Weight of the cross-entropy of auxiliary logits, where a network returns some in training beside its logits, as
    GoogLeNet and Inception do with the option aux_logits True; 0.3 and 0.4 are usual for them."""
    mixup_alpha: NonNegative = 0.0
    """Mixup: every image of a batch is mixed with another one, in shares that follow a Beta distribution with this
    parameter (0.2 is usual), for teacher and student alike; 0 does without. Classification only."""
    cutmix_alpha: NonNegative = 0.0
    """CutMix, likewise: a rectangle of another image is put in (1.0 is usual). With both, a draw decides for every
    batch."""
    class_balanced: bool = False
    """Draw training images with replacement, every class as often as any other."""
    ema_decay: Annotated[float, Bounds(above=0, below=1)] | None = None
    """Decay, at every update, of an exponential moving average of the weights (0.99 suits a thousand updates), which
    is what is evaluated and kept; None keeps the weights themselves."""
    milestones: tuple[float, ...] = USUAL_MILESTONES
    """Milestones of the schedule step, as shares of the run; those of the usual CIFAR-100 recipe are 5/8, 6/8 and
    7/8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learning_rate_warmup >= self.epochs and self.learning_rate_warmup:
            raise UsageError(f"a warm-up of {self.learning_rate_warmup} epochs leaves none of {self.epochs}")
        if self.optimizer == "dot":
            self._check_dot()
        if not all(low < high for low, high in itertools.pairwise((0.0, *self.milestones, 1.0))):
            raise UsageError(f"the milestones must rise within 0 to 1, not {', '.join(map(str, self.milestones))}")

    @property
    def mixing(self) -> Mixing | None:
        """How the images of a batch are mixed, or None if they are not."""
        from rlkd_env.data.augmentation import Mixing

        return Mixing(self.mixup_alpha, self.cutmix_alpha) if self.mixup_alpha or self.cutmix_alpha else None

    def check_detection(self) -> None:
        """Check that detectors can be trained so.

        Raises:
            UsageError: if images are to be mixed, whose boxes would not be.
        """
        if self.mixing is not None:
            raise UsageError("mixup and CutMix are for classification: leave --mixup-alpha and --cutmix-alpha away")

    def _check_dot(self) -> None:
        if not self.dot_delta <= self.momentum < 1.0 - self.dot_delta:
            raise UsageError(f"dot takes the momentum {self.momentum:g} ± {self.dot_delta:g}, which must be in 0 to 1")
        if self.clip_grad_norm is not None:
            raise UsageError("dot has two gradients, whose norms are not clipped: leave --clip-grad-norm out")

    def create_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Return the optimiser of a network and of what is trained along with it."""
        from torch.optim import SGD, Adam, AdamW

        parameters = list(parameters)
        on_gpu = all(parameter.is_cuda for parameter in parameters)  # where one kernel updates all, and can be captured
        decay, fused = self.weight_decay, on_gpu or None
        if self.optimizer in ("adam", "adamw"):
            kind = Adam if self.optimizer == "adam" else AdamW
            return kind(parameters, self.learning_rate, weight_decay=decay, fused=fused, capturable=on_gpu)
        if self.optimizer == "dot":
            from rlkd_env.training.dot import DOT

            return DOT(parameters, self.learning_rate, self.momentum, self.dot_delta, decay)
        return SGD(parameters, self.learning_rate, momentum=self.momentum, weight_decay=decay, fused=fused)

    def create_schedule(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Return the schedule, stepped once an update, after a warm-up if there is one."""
        from torch.optim.lr_scheduler import LinearLR, SequentialLR

        if not self.learning_rate_warmup:
            return self._main_schedule(optimizer, total_steps)
        steps = round(total_steps * self.learning_rate_warmup / self.epochs)
        rising = LinearLR(optimizer, start_factor=0.01, total_iters=steps)
        return SequentialLR(optimizer, [rising, self._main_schedule(optimizer, total_steps - steps)], [steps])

    def _main_schedule(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, MultiStepLR

        if self.schedule == "cosine":
            return CosineAnnealingLR(optimizer, total_steps)
        if self.schedule == "step":
            return MultiStepLR(optimizer, [round(share * total_steps) for share in self.milestones])
        return LambdaLR(optimizer, lambda _: 1.0)


@dataclass(frozen=True)
class TeacherRecipe(Recipe):
    """How a teacher is trained on the cross-entropy. The defaults are those of Digits."""

    epochs: Count = 30
    """Passes over the teacher's training images."""
    learning_rate: Positive = 1e-3
    """Learning rate at the start."""
    weight_decay: NonNegative = 0.0
    """L2 penalty on all parameters."""
    optimizer: OptimizerName = "adam"
    """Optimiser: sgd, adam or adamw."""
    model: str = "auto"
    """Name of the network; auto is the data set's own."""
    model_options: dict[str, OptionValue] = field(default_factory=dict)
    """Arguments of the network as NAME VALUE pairs, which its file keeps."""
    proposals: Count = 64
    """Detection only: region proposals of every image that are classified in an update."""
    precision: Precision = "float32"
    """Number format of the network's products: float32 or bfloat16; auto is the latter where the hardware has it."""
    seed: Seed = 0
    """Seed of initialisation and batches."""

    def _check_dot(self) -> None:
        raise UsageError("dot is for distillation: train a teacher with sgd, adam or adamw")

    def as_key(self) -> dict[str, Any]:
        """Return what a cached teacher is found by; what was no option once is left out where it is as it was then."""
        key = {"model": self.model, **asdict(self)}
        usual = {"milestones": USUAL_MILESTONES, **LATER_OPTIONS}
        return {name: value for name, value in key.items() if name not in usual or value != usual[name]}
