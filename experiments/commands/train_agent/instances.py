"""Instance sets: files that list the runs to train a policy on and those to compare it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from experiments.config.presets import read_config_file
from rlkd_env.data import DataSource, ImageSet, create_source
from rlkd_env.data.images import MemoryImages
from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.run import DistillationRun
from rlkd_env.training.frozen_features import FrozenFeatures, FrozenFeaturesConfig
from rlkd_env.training.recipe import TeacherRecipe
from rlkd_env.training.teacher import cached_teacher
from rlkd_env.utils.options import Options

INSTANCE_SETS = Path(__file__).parents[2] / "presets" / "instances"
OptionsT = TypeVar("OptionsT", bound=Options)
_OWN_KEYS = ("name", "seeds", "teacher_recipe", "frozen_features")


@dataclass(frozen=True)
class Instance:
    """Runs that differ only in their seed.

    With a ``teacher_recipe``, fields of a :class:`~rlkd_env.training.recipe.TeacherRecipe`, a teacher is trained once
    and cached; None uses the one in the settings. With ``frozen_features``, fields of a
    :class:`~rlkd_env.training.frozen_features.FrozenFeaturesConfig`, features stand in place of the images.
    """

    name: str
    settings: Mapping[str, Any]
    seeds: range
    teacher_recipe: Mapping[str, Any] | None = None
    frozen_features: Mapping[str, Any] | None = None

    def config(self, **others: Any) -> RunConfig:
        """Return the runs' config, with other values for some options."""
        return RunConfig.from_keywords({**self.settings, **others})

    def build(self, probe_images: int, **others: Any) -> DistillationRun:
        """Build a run whose probe has the given number of images, if there are as many; the run is not started."""
        config, source = self.config(**others), self.source()
        teacher = None
        if self.teacher_recipe is not None:
            splits = source.splits().to(config.engine.select_device())
            teacher = cached_teacher(splits, _checked(TeacherRecipe, self.teacher_recipe, "teacher", self.name))
        run = build_run(config, source, teacher)
        run.probe = enlarged_probe(run, probe_images)
        return run

    def source(self) -> DataSource:
        """Return the data."""
        data = self.config().data
        if self.frozen_features is None:
            return create_source(data)
        return FrozenFeatures(data, _checked(FrozenFeaturesConfig, self.frozen_features, "features", self.name))

    def test_set(self) -> ImageSet | None:
        """Load the test images, which are only for the comparison at the end."""
        return self.source().test_set()


@dataclass(frozen=True)
class InstanceSet:
    """The instances that a policy is trained on, and those that it is compared on."""

    train: tuple[Instance, ...]
    held_out: tuple[Instance, ...]


def read_instance_set(name: str) -> InstanceSet:
    """Read an instance set.

    The file has the keys ``train`` and ``held_out``, which are lists of entries, and optionally ``common``, an entry
    that all others inherit from. An entry has a ``name``, ``seeds`` (the first and the one after the last), options of
    a run and optionally a ``teacher_recipe`` and ``frozen_features``, which are fields as :class:`Instance` says.
    """
    path = INSTANCE_SETS / f"{name}.yaml"
    if Path(name).suffix in (".yaml", ".yml", ".json"):
        path = Path(name)
    elif not path.is_file():
        raise unknown_name("instance set", name, [file.stem for file in INSTANCE_SETS.glob("*.yaml")])
    content = read_config_file(path, ("common", "train", "held_out"))
    if not content.get("train"):
        raise UsageError(f"the instance set {path} has no list 'train'")
    common = content.get("common") or {}
    parts = (content["train"], content.get("held_out") or [])
    train, held_out = (tuple(_instance({**common, **entry}, path) for entry in part) for part in parts)
    return InstanceSet(train, held_out)


def _instance(entry: dict[str, Any], path: Path) -> Instance:
    seeds = entry.get("seeds")
    if "name" not in entry or not isinstance(seeds, list) or len(seeds) != 2 or not 0 <= seeds[0] < seeds[1]:
        raise UsageError(f"{path}: every entry needs a name and seeds [FIRST, END], not {entry}")
    settings = {key: value for key, value in entry.items() if key not in _OWN_KEYS}
    parts = (entry.get("teacher_recipe"), entry.get("frozen_features"))
    instance = Instance(str(entry["name"]), settings, range(*seeds), *parts)
    instance.config()  # reports unknown options before anything is trained
    for kind, options, role in zip((TeacherRecipe, FrozenFeaturesConfig), parts, ("teacher", "features"), strict=True):
        if options is not None:
            _checked(kind, options, role, instance.name)
    return instance


def _checked(kind: type[OptionsT], options: Mapping[str, Any], role: str, name: str) -> OptionsT:
    try:
        return kind.from_keywords(options)
    except UsageError as error:
        raise UsageError(f"the {role} of {name}: {error}") from None


def enlarged_probe(run: DistillationRun, size: int) -> ImageSet:
    """Return the run's probe, enlarged to a size by images that only the teacher is trained on.

    They measure a student as well as the probe does, because the student has not seen them.
    """
    probe, reserve = run.probe, run.splits.reserve
    missing = size - len(probe)
    if missing <= 0:
        return probe.subset(torch.arange(size))
    if not isinstance(probe, MemoryImages) or not isinstance(reserve, MemoryImages):
        return probe
    return probe.joined(reserve.subset(torch.arange(min(missing, len(reserve)))))
