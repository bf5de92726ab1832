"""Every setting of a KD run under one name, for the environments' keyword arguments and the command line alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from rlkd_env.data import BatchStream, DataConfig, DataSource, Splits, TaskName, create_source, source_class
from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.instances.state import PAPER_FEATURES, InstanceState
from rlkd_env.instances.temperature import Temperatures, resolve_range
from rlkd_env.methods import METHODS, Method, Pair, check_method, create_method
from rlkd_env.models import check_model, create_model
from rlkd_env.models.engine import MemoryFormat, Precision, choose_engine
from rlkd_env.models.taps.find_taps import add_taps
from rlkd_env.runs.distributed.processes import Processes
from rlkd_env.runs.distributed.run import DistributedRun
from rlkd_env.runs.reward import RewardMeter
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.curriculum import Curriculum, CurriculumSampler
from rlkd_env.tasks import Task, create_task
from rlkd_env.training.recipe import USUAL_MILESTONES, OptimizerName, Recipe, ScheduleName, chosen_fields
from rlkd_env.training.teacher import TeacherRecipe, cached_teacher, load_teacher
from rlkd_env.utils.randomness import seeded

OptionValue = int | float | bool | str


@dataclass(frozen=True)
class RunConfig(DataConfig):
    """Settings of a KD run. The defaults are those of Digits."""

    teacher: str = "auto"
    """Teacher's file (safetensors or .pth) or folder; auto trains the teacher of Digits once and caches it."""
    teacher_model: str = "auto"
    """Name of the teacher network, for a .pth file, which does not tell it."""
    teacher_options: dict[str, OptionValue] = field(default_factory=dict)
    """Arguments of the teacher's network as NAME VALUE pairs; stages, preactivations and classifier name its taps."""
    student: str = "auto"
    """Student network: one of ours, torchvision/NAME, or package.module:factory; auto is the data set's own."""
    student_options: dict[str, OptionValue] = field(default_factory=dict)
    """Arguments of the student's network, likewise."""
    method: str = "kd"
    """KD method: kd, dkd, pkt, sp, vid, crd, srrl, adain, or cross_entropy (no distillation)."""
    method_options: dict[str, OptionValue] = field(default_factory=dict)
    """Arguments of the method as NAME VALUE pairs, such as kd_weight 0.5 or temperature_squared False."""
    equal_gradients: bool = False
    """Give the distillation terms' gradient by the student's logits the same norm for every instance, the batch's mean,
    so that a temperature sets its direction alone: an ablation of how temperatures weigh instances."""
    features: tuple[str, ...] = PAPER_FEATURES
    """What the agent sees of an instance; a wrong name lists all."""
    reward: str = "probe_loss"
    """What the agent is paid for after every update: the fall of the excess training loss (train_progress, free), of
    the loss on probe images (probe_loss) or its logarithm (log_probe_loss), or of their error rate (probe_accuracy)."""
    reward_interval: int = 1
    """Updates between two measurements of the reward; above 1 the reward is delayed."""
    divergence_penalty: float = -10.0
    """Reward of an update after which loss or logits are not finite; it ends the run."""
    temperature_min: float | str = "0.125s"
    """Lowest temperature: absolute, or with suffix s in units of the teacher's mean logit deviation."""
    temperature_max: float | str = "4s"
    """Highest temperature, likewise. The paper's range is 1 to 10."""
    temperatures: Temperatures = "shared"
    """What is chosen for an instance: one temperature for teacher and student (shared), or one for each (separate)."""
    epochs: int = 120
    """Passes of the student over its training images."""
    batch_size: int = 64
    """Images an update; every one, or in detection every one of its proposals, is a slot of the vector environment."""
    proposals: int = 64
    """Detection only: region proposals of every image that are distilled, the background among them."""
    optimizer: OptimizerName = "sgd"
    """Of the student: sgd or adam, which short trainings of detectors from nothing need."""
    learning_rate: float = 0.05
    """Student's learning rate at the start."""
    momentum: float = 0.9
    """Momentum of the student's SGD."""
    weight_decay: float = 5e-4
    """Weight decay of the student's parameters."""
    schedule: ScheduleName = "cosine"
    """Learning-rate schedule: cosine to zero, step (times 0.1 at the milestones) or constant."""
    milestones: tuple[float, ...] = USUAL_MILESTONES
    """Of the schedule step, as shares of the run; those of the usual CIFAR-100 recipe are 5/8, 6/8 and 7/8."""
    views: int | None = None
    """Random views of every training image, shown epoch after epoch in turn; None shows new ones in every epoch."""
    teacher_cache_mib: int = 512
    """Memory for the teacher's logits where views come back (fixed ones, or no augmentation); 0 keeps none."""
    sequence_phases: int = 0
    """Phases of instance-level sequence learning, in which a snapshot of the student orders the images from easy to
    hard; 0 does without. It goes with every method, but not with exploration."""
    sequence_first_share: float = 0.5
    """Share of the images, the easiest, that the second phase trains on; the last trains on all."""
    precision: Precision = "auto"
    """Number format of the networks' products: float32 or bfloat16; auto is bfloat16 for convolutional students where
    the hardware has it. Evaluations and losses are always in float32."""
    memory_format: MemoryFormat = "auto"
    """Order of images in memory: contiguous or channels_last; auto is the latter for convolutional students."""
    compile: bool = False
    """Compile the networks, which takes minutes and pays on long runs."""
    device: str = "auto"
    """Device such as cpu or cuda:0; auto takes a GPU where there is one."""

    @classmethod
    def from_keywords(cls, keywords: dict[str, Any]) -> RunConfig:
        """Build a config from keyword arguments; without a batch size it is :func:`default_batch_size`.

        Raises:
            UsageError: if a keyword is unknown.
        """
        names = [known.name for known in fields(cls)]
        for keyword in keywords:
            if keyword not in names:
                raise unknown_name("argument", keyword, names)
        return cls(**{"batch_size": default_batch_size(instances_per_image(keywords)), **keywords})

    @property
    def student_name(self) -> str:
        """Name of the student network.

        Raises:
            UsageError: if the data set is unknown.
        """
        return create_source(self).default_student if self.student == "auto" else self.student


def default_batch_size(per_image: int) -> int:
    """Return the images a batch that have so many instances each: 64 of one, or 8 of region proposals."""
    return RunConfig.batch_size if per_image == 1 else 8


def instances_per_image(settings: Mapping[str, Any]) -> int:
    """Return how many slots an image takes in a run of these keyword arguments: more than one in detection.

    Raises:
        UsageError: if the data set is unknown.
    """
    dataset = settings.get("dataset", RunConfig.dataset)
    task = dataset.task if isinstance(dataset, DataSource) else source_class(dataset).task
    return settings.get("proposals", RunConfig.proposals) if task == "detection" else 1


def select_device(name: str) -> torch.device:
    """Return the device of this name, or the best one there is for ``"auto"``.

    Raises:
        UsageError: if this machine or this PyTorch lacks the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name!r} is not available: {str(error).splitlines()[0]}") from None
    return device


@torch.no_grad()
def teacher_logit_deviation(teacher: nn.Module, splits: Splits, task: Task, images: int = 1024) -> float:
    """Mean over instances of up to so many training images of the deviation of the teacher's logits: its unit.

    Raises:
        UsageError: if the teacher's classes are not the data's.
    """
    teacher.eval()
    logits = task.teacher_logits(teacher, splits.train, images)
    background = task.num_logits(splits) - splits.num_classes
    known = logits.shape[-1] - background
    if known != splits.num_classes:
        raise UsageError(f"the teacher knows {known} classes, but the data has {splits.num_classes}")
    return float(logits.std(dim=-1, correction=0).mean())


def build_run(
    config: RunConfig,
    dataset: DataSource | None = None,
    teacher: nn.Module | None = None,
    student: Callable[[], nn.Module] | None = None,
    on_teacher_epoch: Callable[[int, float], None] | None = None,
    processes: Processes | None = None,
) -> DistillationRun:
    """Build the run that a config describes.

    Args:
        config: the settings.
        dataset: a data source in place of ``config.dataset``.
        teacher: a network in place of ``config.teacher``; maps images to logits ``(N, C)``.
        student: creates a fresh student in place of ``config.student``; likewise.
        on_teacher_epoch: follows the training of a teacher that is not cached yet: epoch from 1, mean loss.
        processes: that share the run, each of which builds it and whose devices come before ``config.device``; None
            for a run of this process alone.

    Raises:
        UsageError: if a setting is invalid; nothing has been written then but, perhaps, a cached teacher.
    """
    if processes:
        processes.check_batch(config.batch_size)
        if config.compile and processes.count > 1:
            raise UsageError("compiled networks cannot be shared by several processes: leave compile away")
    recipe = Recipe(**chosen_fields(Recipe, vars(config)))
    state = InstanceState(config.features)
    reward = RewardMeter(config.reward, config.reward_interval)
    if config.temperatures not in get_args(Temperatures):
        raise unknown_name("choice of temperatures", config.temperatures, get_args(Temperatures))
    if config.probe_size < 1:
        raise UsageError(f"the probe needs at least 1 image, not {config.probe_size}")
    source = dataset or create_source(config)
    _check_task(source.task, config, processes)
    state.check(has_regions=source.task == "detection")
    student_name = source.default_student if config.student == "auto" else config.student
    if student is None:
        check_model(student_name)  # an unknown name is told before a teacher is trained
    splits = source.splits().to(processes.device if processes else select_device(config.device))
    BatchStream(splits.train, config.batch_size, 0, config.views)  # likewise a batch that is too large
    if teacher is None:
        teacher = _find_teacher(config, source, splits, on_teacher_epoch)
    teacher = teacher.to(splits.train.labels.device)
    create_student = student or _student_factory(config, student_name, splits)
    create_its_method = _method_factory(config, teacher, splits, source.task)
    device = splits.train.labels.device
    with seeded(0, device):  # networks that cannot be made or do not fit are told now
        trial = create_student().to(device)
        for network, role in ((trial, "student"), (teacher, "teacher")):
            _check_network(network, role, source.task)
        create_its_method(trial)
    engine = choose_engine(device, trial, config.precision, config.memory_format, config.compile)
    task = create_task(source.task, engine, config.proposals)
    deviation = teacher_logit_deviation(teacher, splits, task)
    run_class = partial(DistributedRun, processes=processes) if processes else DistillationRun
    run = run_class(
        task=task,
        splits=splits,
        teacher=teacher,
        create_student=create_student,
        create_method=create_its_method,
        state=state,
        reward=reward,
        temperature_range=resolve_range(config.temperature_min, config.temperature_max, deviation),
        recipe=recipe,
        probe_size=config.probe_size,
        divergence_penalty=config.divergence_penalty,
        teacher_deviation=deviation,
        views=config.views,
        teacher_cache_bytes=config.teacher_cache_mib * 2**20,
        temperatures=config.temperatures,
    )
    if config.sequence_phases:
        curriculum = Curriculum(config.sequence_phases, config.sequence_first_share)
        run.use_sampler(CurriculumSampler(curriculum, len(splits.train), config.epochs, run.device))
    return run


def _check_task(task: TaskName, config: RunConfig, processes: Processes | None) -> None:
    """Check that what is asked for goes with the task of the data.

    Raises:
        UsageError: if the method or one of its options is unknown, or something does not go with the task.
    """
    method = check_method(config.method, config.method_options)
    if task not in method.tasks:
        names = ", ".join(name for name, known in METHODS.items() if task in known.tasks)
        raise UsageError(f"method {config.method!r} is not for {task}. Valid: {names}")
    if task == "classification":
        return
    if processes and processes.count > 1:
        raise UsageError("a detector's run cannot be shared by several processes yet: leave torchrun away")
    if config.sequence_phases:
        raise UsageError("a curriculum orders images by their one loss, which detection lacks: leave it out")


def _check_network(network: nn.Module, role: str, task: TaskName) -> None:
    """Check that a network is one for the task.

    Raises:
        UsageError: if it is a detector, and the task is classification, or the other way round.
    """
    is_detector = hasattr(network, "roi_heads")
    if is_detector and task == "classification":
        raise UsageError(f"the {role} is a detector, but the data set has classes of images alone")
    if not is_detector and task == "detection":
        raise UsageError(f"the {role} is no detector, such as fasterrcnn/resnet18, but the data set has boxes")


def _student_factory(config: RunConfig, name: str, splits: Splits) -> Callable[[], nn.Module]:
    """Return what creates the student."""
    options: dict[str, Any] = dict(config.student_options)
    return lambda: create_model(name, splits.num_classes, splits.image_shape, **options)


def _find_teacher(
    config: RunConfig, source: DataSource, splits: Splits, on_epoch: Callable[[int, float], None] | None
) -> nn.Module:
    """Load the teacher that the config names, or train the data set's own."""
    name = None if config.teacher_model == "auto" else config.teacher_model
    if config.teacher != "auto":
        return load_teacher(Path(config.teacher).expanduser(), splits, name, **config.teacher_options)
    name = name or source.default_teacher
    if not source.trains_its_teacher:
        raise UsageError(
            f"a teacher for {config.dataset} takes long to train: make one with rlkd teacher --dataset "
            f"{config.dataset} --model {name}, or pass a file of weights as --teacher"
        )
    recipe = TeacherRecipe(name, **source.teacher_recipe)
    return cached_teacher(config.dataset, splits, recipe, on_epoch, source.task)


def _method_factory(
    config: RunConfig, teacher: nn.Module, splits: Splits, task: TaskName
) -> Callable[[nn.Module], Method]:
    """Return what creates the method for a student."""
    options: dict[str, Any] = dict(config.method_options)
    uses_features = check_method(config.method, options).uses_features
    describe = _pair_factory(teacher, splits, task) if uses_features else lambda _: None

    def create(student: nn.Module) -> Method:
        method = create_method(config.method, describe(student), **options)
        method.equal_gradients = config.equal_gradients
        return method

    return create


def _pair_factory(teacher: nn.Module, splits: Splits, task: TaskName) -> Callable[[nn.Module], Pair]:
    """Return what describes a student together with the teacher."""
    images, labels = splits.train.take(torch.arange(2)), splits.train.labels
    object_classes = splits.num_classes if task == "detection" else None

    def describe(student: nn.Module) -> Pair:
        for network in (student, teacher):
            if not hasattr(network, "taps"):  # one that the caller brought
                add_taps(network, splits.num_classes, splits.image_shape)
        return Pair.of(student, teacher, images, labels, object_classes)

    return describe
