"""The teacher of a run: loaded, trained or several as one, and given the images that it was trained with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from rlkd_env.data import DataSource, Splits, TaskName
from rlkd_env.data.normalization import AUTO, Constants, for_channels, read_normalization
from rlkd_env.errors import UsageError
from rlkd_env.methods import check_method
from rlkd_env.models import create_model
from rlkd_env.models.classifiers import timm_networks
from rlkd_env.models.ensemble import Teachers
from rlkd_env.models.normalization import Renormalized
from rlkd_env.models.outputs import give_logits
from rlkd_env.runs.config import RunConfig
from rlkd_env.training.recipe import TeacherRecipe
from rlkd_env.training.teacher import cache_folder, cached_teacher, load_teacher, trained_normalization
from rlkd_env.training.teacher_cache import StoredTeacher
from rlkd_env.utils.files import expanded
from rlkd_env.utils.notices import tell


def teacher_name(config: RunConfig, is_given: bool) -> str:
    """Return what messages call the teacher."""
    if is_given:
        return "the given teacher"
    names = " and ".join(config.networks.teachers)
    if names == "auto":
        return f"the teacher of {config.data.dataset}, in {cache_folder()},"
    return f"the teacher{'s' if len(config.networks.teachers) > 1 else ''} {names}"


def teacher_settings(config: RunConfig) -> tuple[str, ...]:
    """Return what tells teachers of the same data apart."""
    networks = config.networks
    options = str(sorted(networks.teacher_options.items()))
    told = str((networks.teachers, networks.teacher_models, networks.teacher_weights))
    return told, options, *networks.teacher_normalization


def find_teacher(
    config: RunConfig, source: DataSource, splits: Splits, on_epoch: Callable[[int, int, float], None] | None
) -> nn.Module:
    """Load the teacher that the config names, take the one whose logits come with the data, or train the data's own."""
    networks, dataset, method = config.networks, config.data.dataset, config.distillation.method
    compares_features = check_method(method, dict(config.distillation.method_options)).uses_features
    if networks.teachers != ("auto",):
        names = zip(networks.teachers, networks.teacher_models, strict=True)
        found = [_load_teacher(config, splits, source.task, *names_of_one) for names_of_one in names]
        if len(found) == 1:
            return found[0]
        if compares_features:
            raise UsageError(f"the method {method!r} compares features, which are one teacher's: name a single one")
        return Teachers(found, networks.teacher_weights)
    if splits.train.teacher_logits is not None:
        if compares_features:
            raise UsageError(
                f"the method {method!r} compares features, but only the teacher's logits come with "
                "the data: choose a method of logits, such as kd or dkd"
            )
        if networks.teacher_normalization != AUTO:
            raise UsageError("--teacher-normalization is for teachers that see images: leave it out")
        return StoredTeacher()
    name = networks.teacher_models[0] or source.default_teacher
    if not source.trains_its_teacher:
        raise UsageError(
            f"a teacher for {dataset} takes long to train: make one with `rlkd teacher --dataset "
            f"{dataset} --model {name}`, or pass a file of weights as --teacher"
        )
    options = dict(networks.teacher_options)
    recipe = TeacherRecipe.from_keywords(source.teacher_recipe, model=name, model_options=options)
    teacher = cached_teacher(splits, recipe, on_epoch, source.task)
    return normalized_teacher(teacher, config, splits, source.task)


def _load_teacher(config: RunConfig, splits: Splits, task: TaskName, teacher: str, name: str | None) -> nn.Module:
    """Load one of the teachers that the config names, which sees images normalised as it was trained with them."""
    options: dict[str, Any] = dict(config.networks.teacher_options)
    if teacher.startswith(timm_networks.PREFIX) and not Path(teacher).exists():
        options = {"pretrained": True, **options}
        network = create_model(teacher, splits.num_classes, splits.image_shape, **options).eval()
        told = getattr(network, "pretrained_cfg", None) or {}
        own = (tuple(told["mean"]), tuple(told["std"])) if told and splits.image_shape[0] == 3 else None
    else:
        path = expanded(teacher)
        network = load_teacher(path, splits, name, **options)
        own = trained_normalization(path)
    return normalized_teacher(network, config, splits, task, own)


def normalized_teacher(
    teacher: nn.Module, config: RunConfig, splits: Splits, task: TaskName, own: Constants | None = None
) -> nn.Module:
    """Return a teacher that gives its logits alone and whose images are normalised as it expects them.

    That is as the config asks for, or by constants of the teacher's ``own``, or as the student's are.
    """
    if task == "classification":
        give_logits(teacher, splits.image_shape)
    wanted = read_normalization(config.networks.teacher_normalization)
    if wanted is None and (own is None or task == "detection"):
        return teacher
    if task == "detection":
        raise UsageError("--teacher-normalization is for classifiers: leave it out")
    given, channels = splits.train.normalization, splits.image_shape[0]
    if given is None:
        if wanted is None:
            tell("the images come normalised already: it is taken that they are normalised as the teacher's were")
            return teacher
        raise UsageError(
            "the images come normalised already, so that the teacher's cannot be normalised otherwise: return them "
            "from 0 to 1, and name the student's constants with --normalization"
        )
    constants = wanted or own
    assert constants is not None
    if (channels, len(constants[0])) != (1, 3):  # a teacher of colour images gets the grey ones three times
        constants = for_channels(constants, channels)
    return teacher if constants == given and wanted is None else Renormalized(teacher, given, constants)
