"""Options of ``rlkd teacher``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from experiments.config.common import CommandConfig
from rlkd_env.data import DataConfig, create_source
from rlkd_env.models import file_stem
from rlkd_env.models.engine import Precision
from rlkd_env.training.recipe import OptimizerName, ScheduleName, chosen_fields
from rlkd_env.training.teacher import TeacherRecipe


@dataclass(frozen=True)
class TeacherTrainingConfig:
    """How the teacher is trained, and where it goes. The defaults are those of Digits."""

    model: str = "auto"
    """Name of the network; auto is the data set's own."""
    epochs: int = 30
    """Passes over the teacher's training images."""
    batch_size: int = 64
    """Images an update."""
    optimizer: OptimizerName = "adam"
    """Optimiser."""
    learning_rate: float = 1e-3
    """Learning rate at the start."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.0
    """L2 penalty on all parameters."""
    schedule: ScheduleName = "cosine"
    """Learning-rate schedule: cosine to zero, step (times 0.1 at 5/8, 6/8, 7/8 of the training) or constant."""
    proposals: int = 64
    """Detection only: region proposals of every image that are classified in an update."""
    precision: Precision = "auto"
    """Number format of the network's products: float32 or bfloat16; auto is the latter where the hardware has it."""
    seed: int = 0
    """Seed of initialisation and batches."""
    device: str = "auto"
    """Device such as cpu or cuda:0; auto takes a GPU where there is one."""
    out: str = "auto"
    """Folder for teacher.safetensors and teacher.json; auto is teachers/DATASET-MODEL-seedN."""
    overwrite: bool = False
    """Replace the teacher in the folder."""
    resume: bool = False
    """Go on with the training in the folder, with the settings it was started with."""
    config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON or YAML file with any of these options as keys; the command line comes before it."""
    preset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Ready-made recipe by name, such as cifar100; a wrong name lists all."""
    checkpoint_seconds: float = 30.0
    """Least time between two checkpoints."""
    progress: bool = True
    """Show a progress bar."""


@dataclass(frozen=True)
class TeacherConfig(CommandConfig):
    """Train a teacher and save it for `rlkd distill --teacher`."""

    data: DataConfig = field(default_factory=DataConfig)
    output: TeacherTrainingConfig = field(default_factory=TeacherTrainingConfig)

    presets = "teacher"

    @property
    def folder(self) -> Path:
        """Folder of the teacher.

        Raises:
            UsageError: if the data set is unknown.
        """
        if self.output.out != "auto":
            return Path(self.output.out)
        dataset = self.data.dataset.rpartition(":")[2]
        return Path("teachers") / f"{dataset}-{file_stem(self.recipe().model)}-seed{self.output.seed}"

    def recipe(self) -> TeacherRecipe:
        """Return network and training.

        Raises:
            UsageError: if an option is invalid.
        """
        settings = asdict(self.output)
        if self.output.model == "auto":
            settings["model"] = create_source(self.data).default_teacher
        return TeacherRecipe(**chosen_fields(TeacherRecipe, settings))
