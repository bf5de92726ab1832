"""Options of ``rlkd teacher``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments.config.common import CommandConfig, FileName, PresetName, TrustConfig
from rlkd_env.data.config import DataConfig
from rlkd_env.training.recipe import TeacherRecipe
from rlkd_env.utils.options import NonNegative, Options


@dataclass(frozen=True)
class TeacherOutputConfig(Options):
    """Where the teacher goes, and how its training starts, stops and goes on."""

    device: str = "auto"
    """Device such as cpu or cuda:0; auto takes a GPU where there is one."""
    out: str = "auto"
    """Folder for teacher.safetensors and teacher.json; auto is teachers/DATASET-MODEL-seedN."""
    overwrite: bool = False
    """Replace the teacher in the folder."""
    resume: bool = False
    """Go on with the training in the folder, with the settings it was started with."""
    config: FileName = None
    """JSON or YAML file with any of these options as keys; the command line comes before it."""
    preset: PresetName = None
    """Ready-made recipe by name, such as cifar100; a wrong name lists all."""
    capture: bool = True
    """Capture updates as CUDA graphs, which a GPU replays several times as fast; what cannot be captured is computed
    as it is."""
    checkpoint_seconds: NonNegative = 30.0
    """Least time between two checkpoints."""
    progress: bool = True
    """Show a progress bar."""


@dataclass(frozen=True)
class TeacherConfig(CommandConfig):
    """Train a teacher and save it for `rlkd distill --teacher`."""

    data: DataConfig = field(default_factory=DataConfig)
    training: TeacherRecipe = field(default_factory=lambda: TeacherRecipe(precision="auto"))
    output: TeacherOutputConfig = field(default_factory=TeacherOutputConfig)
    trust: TrustConfig = field(default_factory=TrustConfig)

    presets = "teacher"

    @property
    def folder(self) -> Path:
        """Folder of the teacher."""
        if self.output.out != "auto":
            return Path(self.output.out)
        from rlkd_env.models import file_stem

        dataset = self.data.dataset.rpartition(":")[2]
        return Path("teachers") / f"{dataset}-{file_stem(self.recipe().model)}-seed{self.training.seed}"

    def recipe(self) -> TeacherRecipe:
        """Return network and training."""
        if self.training.model != "auto":
            return self.training
        from rlkd_env.data import create_source

        return self.training.replaced(model=create_source(self.data).default_teacher)
