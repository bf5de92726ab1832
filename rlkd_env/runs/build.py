"""From settings to a KD run: every part is made and checked before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.data import BatchStream, DataSource, Splits, TaskName, create_source
from rlkd_env.data.augmentation import check_changes
from rlkd_env.data.config import USUAL_PROBE
from rlkd_env.data.images import NO_SECOND_VIEW
from rlkd_env.errors import UsageError
from rlkd_env.instances.state import InstanceState
from rlkd_env.instances.temperature import resolve_range
from rlkd_env.methods import METHODS, check_method
from rlkd_env.models import check_model, create_model
from rlkd_env.models.ensemble import Teachers
from rlkd_env.models.outputs import check_batch_of_one, give_logits
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.distributed.processes import Processes
from rlkd_env.runs.distributed.run import DistributedRun
from rlkd_env.runs.find_teacher import find_teacher, normalized_teacher, teacher_name, teacher_settings
from rlkd_env.runs.method import change_for_method, changed_student, check_heads, method_factory
from rlkd_env.runs.reward import RewardMeter
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.curriculum import CurriculumSampler
from rlkd_env.tasks import Task, create_task
from rlkd_env.training.teacher_cache import KnownViews, StoredTeacher
from rlkd_env.utils.memo import Memo, NoMemo
from rlkd_env.utils.notices import tell
from rlkd_env.utils.randomness import seeded


@torch.no_grad()
def teacher_logit_deviation(
    teacher: nn.Module, splits: Splits, task: Task, images: int = 1024, name: str = "the teacher"
) -> float:
    """Return the unit of relative temperatures: the mean over instances of the standard deviation of the logits.

    Raises:
        UsageError: if the teacher, which the message calls by its ``name``, is for other classes or tells nothing: its
            logits are not finite, or the same for all images or classes.
    """
    teacher.eval()
    stored = splits.train.teacher_logits if isinstance(teacher, StoredTeacher) else None
    logits = task.teacher_logits(teacher, splits.train, images) if stored is None else stored[:images]
    background = task.num_logits(splits) - splits.num_classes
    known = logits.shape[-1] - background
    if known != splits.num_classes:  # a detector's, or those that are stored
        raise UsageError(f"{name} knows {known} classes, but the data has {splits.num_classes}")
    if not logits.isfinite().all():
        raise UsageError(f"{name} gives logits that are not finite: it is damaged, or its training has diverged")
    if (logits == logits[:1]).all() or (logits == logits[:, :1]).all():
        raise UsageError(
            f"{name} gives the same logits for all images or classes, so there is nothing to learn from it"
        )
    return float(logits.std(dim=-1, correction=0).mean())


def _deviation(teacher: nn.Module, splits: Splits, task: Task, config: RunConfig, is_given: bool) -> float:
    """Return the unit of relative temperatures, after a check of the teacher, and of each of several by itself."""
    if isinstance(teacher, Teachers) and not is_given:
        for network, name in zip(teacher.networks, config.networks.teachers, strict=True):
            teacher_logit_deviation(network, splits, task, name=f"the teacher {name}")
    return teacher_logit_deviation(teacher, splits, task, name=teacher_name(config, is_given))


def build_run(
    config: RunConfig,
    dataset: DataSource | None = None,
    teacher: nn.Module | None = None,
    student: Callable[[], nn.Module] | None = None,
    on_teacher_epoch: Callable[[int, int, float], None] | None = None,
    processes: Processes | None = None,
    memo: Memo | None = None,
    before_computing: Callable[[list[nn.Module], Tensor], None] | None = None,
) -> DistillationRun:
    """Build the run that a config describes.

    Args:
        config: the settings.
        dataset: a data source in place of the one that the config names.
        teacher: a network in place of the teacher that the config names; it maps images to logits ``(N, C)``.
        student: a function that creates a fresh student in place of the one that the config names.
        on_teacher_epoch: follows the training of a teacher that is not cached yet, by epoch, from 1, and mean loss.
        processes: the processes that share the run, each of which builds it; their devices replace the config's.
        before_computing: called with student and teacher in evaluation mode and a batch of images of a classification,
            before anything is computed that results depend on, such as to choose the number of threads.
        memo: keeps data, teacher, the deviation of its logits, and its logits on views that come back, for the next
            run of the same settings; only for data and teachers that the config alone names.

    Raises:
        UsageError: if a setting is invalid; nothing has been written then but, perhaps, a cached teacher.
    """
    if processes:
        processes.check_batch(config.recipe.batch_size)
        if processes.count > 1 and config.recipe.auxiliary_weight:
            raise UsageError("auxiliary logits are not for runs that processes share: leave --auxiliary-weight away")
        if processes.count > 1 and config.recipe.mixing:
            raise UsageError(
                "mixed images are not for runs that processes share: leave --mixup-alpha and --cutmix-alpha away"
            )
    environment = config.environment
    state, reward = InstanceState(environment.features), RewardMeter(environment.reward, environment.reward_interval)
    memo = memo or NoMemo()
    source = dataset or create_source(config.data)
    _check_task(source.task, config, processes)
    state.check(has_regions=source.task == "detection")
    student_name = source.default_student if config.networks.student == "auto" else config.networks.student
    if student is None:
        check_model(student_name)  # an unknown name is told before a teacher is trained
    device = processes.device if processes else config.engine.select_device()
    of_data = f"{config.data} on {device}"
    splits = memo.keep(("splits", of_data), lambda: source.splits().to(device))
    BatchStream(splits.train, config.recipe.batch_size, 0, config.batches.views)  # likewise a batch that is too large
    _check_images(config, splits)
    is_given = teacher is not None
    if teacher is None:
        find = partial(find_teacher, config, source, splits, on_teacher_epoch)
        teacher = memo.keep(("teacher", of_data, *teacher_settings(config)), find)
    else:
        teacher = normalized_teacher(teacher, config, splits, source.task)
    teacher = teacher.to(splits.train.labels.device)
    options: dict[str, Any] = dict(config.networks.student_options)
    if student is None:
        create_student = partial(create_model, student_name, splits.num_classes, splits.image_shape, **options)
    else:
        create_student = partial(_made_by, student, splits.image_shape)
    create_its_method = method_factory(config, teacher, splits, source.task)
    device = splits.train.labels.device
    with seeded(0, device):  # networks that cannot be made or do not fit are told now
        trial = create_student().to(device)
        for network, role in ((trial, "student"), (teacher, "teacher")):
            _check_network(network, role, source.task)
            if source.task == "classification" and not isinstance(network, StoredTeacher):
                _check_classifier(network, role, splits)
        if config.recipe.batch_size == 1 and source.task == "classification":
            check_batch_of_one(trial, splits.train.take(torch.arange(1)), "student")
        check_heads(config, trial)
        change = change_for_method(config, teacher, splits, source.task, trial)
        if change is not None:
            create_student = partial(changed_student, create_student, change)
            trial = create_student().to(device)
        method = create_its_method(trial)
    method.check_networks(trial, teacher)
    if method.needs_second_view:
        if isinstance(teacher, StoredTeacher):
            raise UsageError(NO_SECOND_VIEW.format(reason="the teacher's logits are stored with the images"))
        splits.train.in_stronger_views()  # what cannot be is told now
    if before_computing is not None and source.task == "classification" and not isinstance(teacher, StoredTeacher):
        few = torch.arange(min(config.recipe.batch_size, len(splits.train)))
        with seeded(0, device):
            before_computing([trial.eval(), teacher.eval()], splits.train.take(few))
        trial.train()
    engine = config.engine.engine(device, trial, splits.train.take(torch.arange(min(4, len(splits.train)))))
    recipe = config.recipe
    of_task = (config.batches.proposals, recipe.auxiliary_weight, recipe.label_smoothing, method.uses_two_heads)
    task = create_task(source.task, engine, *of_task)
    if (remark := method.remark(task.num_logits(splits))) is not None:
        tell(remark)
    computed = (f"{engine.precision} {engine.channels_last}", config.batches.proposals)
    deviation = memo.keep(
        ("deviation", of_data, *teacher_settings(config), *computed),
        partial(_deviation, teacher, splits, task, config, is_given),
    )
    cache_bytes = config.batches.teacher_cache_mib * 2**20
    known_views = memo.keep(
        ("logits", of_data, *teacher_settings(config), *computed, cache_bytes), partial(KnownViews, cache_bytes)
    )
    bounds = (environment.temperature_min, environment.temperature_max)
    run_class = partial(DistributedRun, processes=processes) if processes else DistillationRun
    run = run_class(
        task=task,
        splits=splits,
        teacher=teacher,
        create_student=create_student,
        student_options={} if change is None else dict(change.options),
        create_method=create_its_method,
        state=state,
        reward=reward,
        temperature_range=resolve_range(*bounds, deviation),
        recipe=config.recipe,
        probe_size=config.data.probe_size or USUAL_PROBE,
        divergence_penalty=environment.divergence_penalty,
        teacher_deviation=deviation,
        views=config.batches.views,
        teacher_cache_bytes=cache_bytes,
        known_views=known_views,
        temperatures=environment.temperatures,
        two_views=method.needs_second_view,
    )
    asked, found = config.data.probe_size, len(run.probe)
    if asked is not None and found < asked:
        tell(f"rewards are measured on {found} images, all that the probe part has, not {asked}")
    curriculum = config.curriculum.curriculum()
    if curriculum is not None:
        run.use_sampler(CurriculumSampler(curriculum, len(splits.train), config.recipe.epochs, run.device))
    return run


def _check_task(task: TaskName, config: RunConfig, processes: Processes | None) -> None:
    """Check that what is asked for goes with the task of the data."""
    method = check_method(config.distillation.method, config.distillation.method_options)
    if task not in method.tasks:
        names = ", ".join(name for name, known in METHODS.items() if task in known.tasks)
        raise UsageError(f"method {config.distillation.method!r} is not for {task}. Valid: {names}")
    if config.recipe.optimizer == "dot" and processes and processes.count > 1:
        raise UsageError("dot takes two gradients an update, which several processes cannot share yet: take sgd")
    if task == "classification":
        if config.recipe.class_balanced and config.curriculum.curriculum_phases:
            raise UsageError("a curriculum draws images by how hard they are: leave --class-balanced away")
        return
    config.recipe.check_detection()
    if len(config.networks.teachers) > 1:
        raise UsageError("several teachers are for classification: name one detector")
    if processes and processes.count > 1:
        raise UsageError("a detector's run cannot be shared by several processes yet: leave torchrun away")
    if config.curriculum.curriculum_phases:
        raise UsageError("a curriculum orders images by their one loss, which detection lacks: leave it out")


def _check_images(config: RunConfig, splits: Splits) -> None:
    """Check that the training images can be varied as is asked for."""
    if splits.train.teacher_logits is not None and config.recipe.mixing:
        raise UsageError(
            "the teacher's logits come with the images, and are not known for mixed ones: leave "
            "--mixup-alpha and --cutmix-alpha away"
        )
    check_changes(config.data, splits.train.preprocessing.changes)


def _check_network(network: nn.Module, role: str, task: TaskName) -> None:
    """Check that a network is one for the task."""
    is_detector = hasattr(network, "roi_heads")
    if is_detector and task == "classification":
        raise UsageError(f"the {role} is a detector, but the data set has classes of images alone")
    if not is_detector and task == "detection":
        raise UsageError(f"the {role} is no detector, such as fasterrcnn/resnet18, but the data set has boxes")


def _made_by(create: Callable[[], nn.Module], image_shape: tuple[int, int, int]) -> nn.Module:
    """Return a network that the caller's function makes, which returns its logits alone."""
    return give_logits(create(), image_shape)


@torch.no_grad()
def _check_classifier(network: nn.Module, role: str, splits: Splits) -> None:
    """Check that a network gives logits, and tell the user of probabilities, which temperatures hardly soften."""
    was_training = network.training
    logits = network.eval()(splits.train.take(torch.arange(2)))
    network.train(was_training)
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != 2:
        kind = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UsageError(f"the {role} gives {kind} for 2 images, not their logits (2, {splits.num_classes})")
    if logits.shape[1] != splits.num_classes:
        raise UsageError(f"the {role} knows {logits.shape[1]} classes, but the data has {splits.num_classes}")
    if bool(((logits >= 0) & ((logits.sum(dim=-1, keepdim=True) - 1).abs() < 1e-4)).all()):
        tell(f"the {role} gives probabilities in place of logits and so trains badly: leave its softmax away")
