"""The commands' options as typed dataclasses: every field is a command-line option and a key of a config file."""

from experiments.config.bench import BenchConfig
from experiments.config.common import config_hash
from experiments.config.compare import CompareConfig
from experiments.config.credit import CreditConfig
from experiments.config.distill import DistillConfig, OutputConfig
from experiments.config.report import ReportConfig
from experiments.config.teacher import TeacherConfig
from experiments.config.train_agent import TrainAgentConfig
from experiments.config.validate import ValidateConfig

__all__ = [
    "BenchConfig",
    "CompareConfig",
    "CreditConfig",
    "DistillConfig",
    "OutputConfig",
    "ReportConfig",
    "TeacherConfig",
    "TrainAgentConfig",
    "ValidateConfig",
    "config_hash",
]
