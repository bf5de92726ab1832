"""What a run of knowledge distillation is made of, before any student exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.data import Batch, BatchStream, ImageSet, MemoryImages, Share, Splits
from rlkd_env.data.stream import WHOLE
from rlkd_env.instances.state import InstanceState
from rlkd_env.instances.temperature import TemperatureRange
from rlkd_env.methods import Method
from rlkd_env.models.graphs import RecordedFunction
from rlkd_env.runs.reward import RewardMeter
from rlkd_env.sampling.base import Sampler
from rlkd_env.tasks import Evaluation, Task
from rlkd_env.training.batches_ahead import BatchesAhead
from rlkd_env.training.captured.evaluation import CapturedEvaluation
from rlkd_env.training.captured.update import CapturedUpdate
from rlkd_env.training.collective import Collective
from rlkd_env.training.recipe import Recipe
from rlkd_env.training.teacher_cache import KnownViews, StoredLogits, StoredTeacher, TeacherCache
from rlkd_env.training.update import TeacherForward, Update
from rlkd_env.utils.choices import Temperatures
from rlkd_env.utils.randomness import seeded

PROBE_PART = 2
"""Least size, in batches, of the parts of the probe images that take turns (the reward probe_turns)."""


@dataclass(eq=False)
class Ingredients:
    """Everything that runs of all seeds have in common.

    Args:
        task: how networks are forwarded and evaluated.
        splits: train, probe and validation images, on the device.
        teacher: the teacher on the device; it is put into evaluation mode and frozen here. A
            :class:`~rlkd_env.training.teacher_cache.StoredTeacher` takes its logits from the training images.
        create_student: returns a fresh student on the CPU, drawing from torch's global generator.
        create_method: returns the KD method for a student, with fresh parameters, drawing from the same generator.
        state: the features of the instances.
        reward: how the student's gain is measured.
        temperature_range: what agents may choose; the run itself takes any positive temperature.
        recipe: optimiser, schedule, epochs and batch size.
        probe_size: number of probe images that the reward is measured on, the same throughout.
        divergence_penalty: the reward of an update that diverges.
        teacher_deviation: mean std of the teacher's logits, the unit of relative temperatures.
        views: number of random views of every image, shown in turn; None shows new ones in every epoch.
        teacher_cache_bytes: memory for what the teacher says about views that come back; 0 keeps nothing.
        known_views: what other runs with this teacher, these images and this engine know of it; None shares nothing.
        temperatures: whether agents choose one temperature for an instance, or one each for teacher and student.
        sampler: chooses the batches in place of a shuffled pass.
        student_options: options of :func:`~rlkd_env.models.create_model` that make the student that the method has
            changed of the one that the settings name.
        create_policy: returns a fresh policy of the run's own for a seed, which the run's optimiser trains.
        two_views: whether batches have a second view of every image, which methods that ``needs_second_view`` compare.

    Raises:
        UsageError: if a batch is larger than the training set.
    """

    task: Task
    splits: Splits
    teacher: nn.Module
    create_student: Callable[[], nn.Module]
    create_method: Callable[[nn.Module], Method]
    state: InstanceState
    reward: RewardMeter
    temperature_range: TemperatureRange
    recipe: Recipe
    probe_size: int = 512
    divergence_penalty: float = -10.0
    teacher_deviation: float = 1.0
    views: int | None = None
    teacher_cache_bytes: int = 0
    known_views: KnownViews | None = None
    temperatures: Temperatures = "shared"
    sampler: Sampler | None = None
    student_options: dict[str, Any] = field(default_factory=dict)
    create_policy: Callable[[int], nn.Module] | None = None
    two_views: bool = False

    def __post_init__(self) -> None:
        self.device = self.splits.train.labels.device
        self.steps_per_epoch = self.create_stream(0).batches_per_epoch
        self.total_steps = self.steps_per_epoch * self.recipe.epochs
        probe = self.splits.probe
        self.probe = probe.subset(torch.arange(min(self.probe_size, len(probe)))).in_memory()
        self._parts: tuple[ImageSet, list[ImageSet]] | None = None
        self.frozen_teacher = self.task.engine.freeze(self.teacher, self.splits.image_shape)
        self._share_logits()

    @property
    def batch_size(self) -> int:
        """Number of instances in a batch, N."""
        return self.recipe.batch_size * self.task.instances_per_image

    @property
    def update_class(self) -> type[Update]:
        """How updates are computed: captured where the engine does so."""
        return CapturedUpdate if self.task.engine.captured else Update

    @property
    def shared_teacher(self) -> TeacherForward:
        """The teacher as runs of all seeds can share it."""
        views_are_own = isinstance(self._cache, TeacherCache) and self.splits.train.is_random
        return TeacherForward(self.teacher, self.frozen_teacher, None if views_are_own else self._cache)

    def teacher_of(self, stream: BatchStream) -> TeacherForward:
        """Return the teacher as runs on this stream can share it."""
        if not self.splits.train.is_random:
            return self.shared_teacher
        # The views, and so the logits that are worth keeping, are the seed's own.
        return replace(self.shared_teacher, cache=self._create_cache(stream))

    @property
    def probe_parts(self) -> list[ImageSet]:
        """The probe images in parts of at least two batches, for rewards that parts take turns in."""
        if self._parts is None or self._parts[0] is not self.probe:
            count = max(1, len(self.probe) // (PROBE_PART * self.recipe.batch_size))
            starts = range(count)
            self._parts = self.probe, [self.probe.subset(torch.arange(at, len(self.probe), count)) for at in starts]
        return self._parts[1]

    def create_stream(self, seed: int, share: Share = WHOLE, train: ImageSet | None = None) -> BatchStream:
        """Return the batches of a seed, or a share of each; ``train`` are the same images handed out in another way."""
        recipe, train = self.recipe, self.splits.train if train is None else train
        drawn = (recipe.batch_size, seed, self.views, share, recipe.mixing, recipe.class_balanced, self.two_views)
        return BatchStream(train, *drawn)

    def create_update(self, seed: int, stream: BatchStream, collective: Collective) -> Update:
        """Create a fresh student and everything that is trained along with it."""
        teacher = self.teacher_of(stream)
        with seeded(seed, self.device):
            student = self.task.engine.prepare(self.create_student().to(self.device)).train()
            method = self.create_method(student).to(self.device).train()
            policy = None if self.create_policy is None else self.create_policy(seed).to(self.device)
        steps = (self.total_steps, self.steps_per_epoch)
        parts = (self.task, teacher, student, method, self.recipe, *steps, seed, self.state)
        return self.update_class(*parts, policy=policy, collective=collective)

    def draw_batches(self, stream: BatchStream, update: Update) -> Callable[[int], Batch]:
        """Return what draws the batch of a step: several ahead, through the teacher too, where updates are captured."""
        engine, teacher = self.task.engine, update.teacher
        if update.why_plain is not None or not isinstance(self.splits.train, MemoryImages):
            return stream.batch

        def ask(images: Tensor) -> Tensor:
            return engine.forward(teacher.frozen, engine.images(images))

        asks = teacher.cache is None and not update.method.uses_features
        return BatchesAhead(stream, RecordedFunction(ask, self.device) if asks else None).batch

    def probe_evaluation(
        self, evaluate: Callable[[ImageSet], Evaluation], student: nn.Module
    ) -> Callable[[ImageSet], Evaluation]:
        """Return what measures a student for a reward: captured where the engine does so."""
        captures = self.task.engine.captured and self.task.follows_logits
        return CapturedEvaluation(evaluate, student, self.device) if captures else evaluate

    def _share_logits(self) -> None:
        """Prepare the memory of the teacher's logits that runs of all seeds share."""
        self._cache = self._create_cache(self.create_stream(0))

    def _create_cache(self, stream: BatchStream) -> TeacherCache | StoredLogits | None:
        """Return a memory of the teacher's logits if they are stored, or if views come back and their logits fit."""
        train = self.splits.train
        if isinstance(self.teacher, StoredTeacher) and train.teacher_logits is not None:
            return StoredLogits(train.teacher_logits)
        views = stream.views if train.is_random else 1
        if not self.task.follows_logits or views is None or views >= self.recipe.epochs or self.recipe.mixing:
            return None
        size = views * (1 + self.two_views) * len(train) * self.splits.num_classes * 4
        if size > self.teacher_cache_bytes:
            return None
        most = self.teacher_cache_bytes
        networks = (self.task.engine, self.frozen_teacher, self.teacher)
        return TeacherCache(*networks, train, stream, most, self.known_views or KnownViews(most))
