"""The commands' options as typed dataclasses: every field is a command-line option and a key of a config file."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from experiments.config.bench import BenchConfig as BenchConfig
    from experiments.config.common import config_hash as config_hash
    from experiments.config.compare import CompareConfig as CompareConfig
    from experiments.config.credit import CreditConfig as CreditConfig
    from experiments.config.distill import DistillConfig as DistillConfig, OutputConfig as OutputConfig
    from experiments.config.report import (
        BoardConfig as BoardConfig,
        EvaluateConfig as EvaluateConfig,
        ExportConfig as ExportConfig,
        ReportConfig as ReportConfig,
    )
    from experiments.config.teacher import TeacherConfig as TeacherConfig
    from experiments.config.train_agent import TrainAgentConfig as TrainAgentConfig
    from experiments.config.validate import ValidateConfig as ValidateConfig
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
