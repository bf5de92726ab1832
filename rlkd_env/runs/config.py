"""Every setting of a KD run, for the environments' keyword arguments and the command line alike; imports no PyTorch.

A group of settings checks itself where it is made and builds what it describes. Every setting also has one flat name:
:meth:`RunConfig.from_keywords` reads them, :meth:`RunConfig.as_keywords` tells them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from rlkd_env.data.config import DataConfig
from rlkd_env.data.normalization import AUTO, read_normalization
from rlkd_env.errors import UsageError
from rlkd_env.models.config import EngineConfig
from rlkd_env.sampling.settings import Curriculum
from rlkd_env.training.recipe import Recipe
from rlkd_env.utils.choices import PAPER_FEATURES, TeacherWeights, Temperatures
from rlkd_env.utils.options import (
    Bounds,
    Finite,
    NameOf,
    NonNegativeInt,
    Options,
    OptionValue,
    Share,
    TemperatureOption,
)


@dataclass(frozen=True)
class NetworksConfig(Options):
    """Teacher and student."""

    teacher: str | tuple[str, ...] = "auto"
    """Teacher's file (safetensors, .pth or .ckpt) or folder, or timm/NAME for one that timm has pretrained; auto trains
    the teacher of Digits once and caches it. Several of them teach together, as --teacher-weights says."""
    teacher_weights: TeacherWeights = "mean"
    """How the logits of several teachers are averaged: alike (mean), or with a larger weight for a teacher whose
    prediction on the instance has a lower entropy (entropy)."""
    teacher_model: str | tuple[str, ...] = "auto"
    """Name of the teacher network, needed for a .pth file, which does not hold it; for several teachers that of each,
    or one for all."""
    teacher_options: dict[str, OptionValue] = field(default_factory=dict)
    """Arguments of the teacher's network as NAME VALUE pairs; stages, preactivations and classifier name its taps."""
    teacher_normalization: tuple[str, ...] = AUTO
    """Mean and standard deviation that the teacher's images are normalised by, if they are not the student's: a name or
    numbers, as for normalization."""
    student: str = "auto"
    """Student network: one of ours, torchvision/NAME, timm/NAME, or package.module:factory; auto is the data set's
    own."""
    student_options: dict[str, OptionValue] = field(default_factory=dict)
    """Arguments of the student's network as NAME VALUE pairs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("name", "num_classes", "image_shape"):
            if option in self.teacher_options or option in self.student_options:
                raise UsageError(f"{option} is no option of a network: it follows from the other options and the data")
        read_normalization(self.teacher_normalization)
        for name in ("teacher", "teacher_model"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) == 1:
                object.__setattr__(self, name, value[0])
        count, models = len(self.teachers), self.teacher_model
        if isinstance(models, tuple) and len(models) != count:
            raise UsageError(f"{len(models)} names of teacher networks do not fit {count} teachers: name all or one")
        if count == 1 and self.teacher_weights != "mean":
            raise UsageError("--teacher-weights is for several teachers: name them with --teacher")
        if count > 1 and "auto" in self.teachers:
            raise UsageError("auto is no teacher among others: name all of them")

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers, one or several."""
        return self.teacher if isinstance(self.teacher, tuple) else (self.teacher,)

    @property
    def teacher_models(self) -> tuple[str | None, ...]:
        """The name of every teacher's network, or None where it is to be found out."""
        models = self.teacher_model if isinstance(self.teacher_model, tuple) else (self.teacher_model,)
        return tuple(None if name == "auto" else name for name in models) * (len(self.teachers) // len(models))


@dataclass(frozen=True)
class DistillationConfig(Options):
    """The loss that the student learns from."""

    method: Annotated[str, NameOf("rlkd_env.methods.create:METHODS")] = "kd"
    """KD method: kd, dkd, dist, mlkd, crld, sdd, deit; fitnet, at, nst, ofd, reviewkd, catkd, kdsvd, vid, srrl, adain,
    simkd; pkt, sp, rkd, cc, crd; for detection also box, ld, fpn, fgd and icd; cross_entropy (no distillation); or
    several, such as dkd+rkd."""
    method_options: dict[str, OptionValue] = field(default_factory=dict)
    """Arguments of the method as NAME VALUE pairs, such as kd_weight 0.5 or temperature_squared False; of several
    methods with their names before them, such as rkd.feature_weight 2."""
    equal_gradients: bool = False
    """Scale the distillation terms' gradient with respect to the student's logits to the same norm for every instance,
    the batch's mean, so that a temperature sets its direction alone: an ablation of how temperatures weigh
    instances."""


@dataclass(frozen=True)
class EnvironmentConfig(Options):
    """What an agent sees, what it may choose, and what it is paid for."""

    features: tuple[Annotated[str, NameOf("rlkd_env.instances.features:FEATURES")], ...] = PAPER_FEATURES
    """What the agent sees of an instance; a wrong name lists all."""
    reward: Annotated[str, NameOf("rlkd_env.runs.reward:REWARDS")] = "probe_turns"
    """What the agent is paid for after every update: the fall of the loss on a part of the probe images, about two
    batches, which take turns (probe_turns); on all of them (probe_loss) or its logarithm (log_probe_loss); of their
    error rate (probe_accuracy); or of the excess training loss from batch to batch (train_progress), which is free, but
    mostly noise."""
    reward_interval: Annotated[int, Bounds(at_least=1, unit="update")] = 1
    """Updates between two measurements of the reward; above 1 the reward is delayed."""
    divergence_penalty: Finite = -10.0
    """Reward of an update after which the loss or the logits are not finite; it ends the run."""
    temperature_min: TemperatureOption = "0.125s"
    """Lowest temperature: absolute, or with suffix s in units of the teacher's mean logit standard deviation."""
    temperature_max: TemperatureOption = "4s"
    """Highest temperature, likewise. The paper's range is 1 to 10."""
    temperatures: Temperatures = "shared"
    """What is chosen for an instance: one temperature for teacher and student (shared), or one for each (separate)."""


@dataclass(frozen=True)
class BatchesConfig(Options):
    """What the batches of a run are made of."""

    proposals: Annotated[int, Bounds(at_least=1, unit="proposal")] = 64
    """Detection only: region proposals of every image that are distilled, the background among them."""
    views: Annotated[int, Bounds(at_least=1, unit="view")] | None = None
    """Random views of every training image, shown epoch after epoch in turn; None shows new ones in every epoch."""
    teacher_cache_mib: NonNegativeInt = 512
    """Memory, in MiB, for the teacher's logits where views come back (fixed ones, or no augmentation), and on a CPU for
    its features, if a method compares some and all fit; 0 keeps nothing."""


@dataclass(frozen=True)
class CurriculumConfig(Options):
    """Whether images come in an order from easy to hard."""

    curriculum_phases: int = 0
    """Phases of a curriculum, in which a snapshot of the student orders the images from easy to hard; 0 does without.
    It goes with every method, but not with exploration."""
    curriculum_first_share: Share = Curriculum.first_share
    """Share of the images, the easiest, that the second phase trains on; the last phase trains on all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.curriculum()

    def curriculum(self) -> Curriculum | None:
        """Return the curriculum, or None without one."""
        if self.curriculum_phases == 0:
            return None
        return Curriculum(self.curriculum_phases, self.curriculum_first_share)


@dataclass(frozen=True)
class RunConfig(Options):
    """Settings of a KD run. The defaults are those of Digits."""

    data: DataConfig = field(default_factory=DataConfig)
    networks: NetworksConfig = field(default_factory=NetworksConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    recipe: Recipe = field(default_factory=Recipe)
    batches: BatchesConfig = field(default_factory=BatchesConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any] | None = None, /, **more: Any) -> RunConfig:
        """Build from settings by their flat names; the batch size, unless given, is :func:`default_batch_size`."""
        settings = {**(keywords or {}), **more}
        usual = {} if "batch_size" in settings else {"batch_size": default_batch_size(instances_per_image(settings))}
        return cls().replaced(settings, **usual)


DETECTION_RECIPE: dict[str, Any] = {
    "epochs": 20,
    "optimizer": "adam",
    "learning_rate": 0.003,
    "weight_decay": 1e-4,
    "method_options": {"task_weight": 1.0, "kd_weight": 1.0},
}
"""Settings that suit detectors, in place of the defaults, which are those of Digits."""
DETECTION_BATCH = 8
"""The usual number of images in a batch of detection."""
DETECTION_SETS = ("digits_detection", "coco", "voc", "yolo")
"""The data sets of detection by name."""


def default_batch_size(per_image: int) -> int:
    """Return the usual number of images in a batch: 64 of one instance each, or 8 of many region proposals each."""
    return Recipe.batch_size if per_image == 1 else DETECTION_BATCH


def instances_per_image(settings: Mapping[str, Any]) -> int:
    """Return how many slots an image takes in a run of these keyword arguments: more than one in detection."""
    from rlkd_env.data import DATASETS, DataSource

    dataset = settings.get("dataset", DataConfig.dataset)
    task = dataset.task if isinstance(dataset, DataSource) else DATASETS[dataset].task
    return settings.get("proposals", BatchesConfig.proposals) if task == "detection" else 1
