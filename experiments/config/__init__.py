"""The commands' options as typed dataclasses: every field is a command-line option and a key of a config file."""

from experiments.config.bench import BenchConfig
from experiments.config.common import as_arguments
from experiments.config.credit import CreditConfig
from experiments.config.distill import DistillConfig, OutputConfig
from experiments.config.teacher import TeacherConfig
from experiments.config.train_agent import TrainAgentConfig

__all__ = [
    "BenchConfig",
    "CreditConfig",
    "DistillConfig",
    "OutputConfig",
    "TeacherConfig",
    "TrainAgentConfig",
    "as_arguments",
]
