"""Options of ``rlkd bench``."""

from __future__ import annotations

from dataclasses import dataclass, field

from experiments.config.common import CommandConfig, FileName, PresetName
from experiments.config.distill import AgentConfig
from rlkd_env.runs.config import RunConfig
from rlkd_env.utils.options import Count, Options


@dataclass(frozen=True)
class BenchOptions(Options):
    """What is measured, and how."""

    arms: tuple[str, ...] = ()
    """Arms beside plain KD; none means all but those that pull single levers. A wrong name lists them."""
    rounds: Count = 7
    """Rounds in which every arm has its turn."""
    steps: Count = 32
    """Updates of an arm in a round; a multiple of the agent's rollout, 1,024 rows, is fair to it."""
    random_images: bool = False
    """Bench on noise of CIFAR-100's size, with an untrained teacher: speed needs no data."""
    memory: bool = True
    """Measure every arm's peak memory too, in a process of its own."""
    preset: PresetName = None
    """Ready-made config of rlkd distill, such as cifar100/resnet56-resnet20/kd."""
    config: FileName = None
    """JSON or YAML file with any of these options as keys; the command line comes before it."""
    out: str = "runs/bench"
    """Folder for bench.json."""
    overwrite: bool = False
    """Replace the measurement in the folder."""


@dataclass(frozen=True)
class BenchConfig(CommandConfig):
    """Measure what a KD step costs: plain, under a rule, and with an agent that learns or acts."""

    run: RunConfig = field(default_factory=RunConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    bench: BenchOptions = field(default_factory=BenchOptions)

    presets = "distill"
