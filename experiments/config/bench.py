"""Options of ``rlkd bench``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from experiments.config.common import CommandConfig, FileName, PresetName, TrustConfig
from experiments.config.distill import AgentConfig
from rlkd_env.errors import UsageError
from rlkd_env.runs.config import RunConfig
from rlkd_env.utils.options import Count, Options, Positive


@dataclass(frozen=True)
class BenchOptions(Options):
    """What is measured, and how."""

    arms: tuple[str, ...] = ()
    """Arms beside plain KD; none means all but those that pull single levers or are of single methods;
    methods means the latter. A wrong name lists them."""
    seconds: Positive = 60
    """Time for all of it. Each arm has at least three rounds, in which it takes turns with plain KD, and up to seven if
    there is time; an arm whose rounds would end too late is left out."""
    rounds: Annotated[Count | None, tyro.conf.arg(metavar="INT")] = None
    """Rounds of every arm, however long they take."""
    steps: Annotated[Count | None, tyro.conf.arg(metavar="INT")] = None
    """Updates in a turn; a multiple of the agent's rollout, 1,024 rows, is fair to it. None means 0.3 s of them."""
    random_images: bool = False
    """Bench on noise of CIFAR-100's size, with an untrained teacher: speed needs no data."""
    data: bool = False
    """Bench the data path alone, for 1, 2, 4, ... workers: images a second read, copied and normalised. Without a
    --dataset it reads made-up JPEG files of ImageNet's usual size."""
    learning: bool = False
    """Bench what agents learn within a run, on a toy whose best temperatures are known: --arms are then names of
    agents, and --rounds the number of seeds, which is 3 if nothing else is said."""
    memory: bool = False
    """On a CPU measure every arm's peak memory too, in a process of its own, which takes much longer than --seconds; on
    a GPU it is always measured."""
    preset: PresetName = None
    """Ready-made config: gpu, or one of rlkd distill, such as cifar100/resnet56-resnet20/kd."""
    config: FileName = None
    """JSON or YAML file with any of these options as keys; the command line comes before it."""
    out: str = "runs/bench"
    """Folder for bench.json."""
    overwrite: bool = False
    """Replace the measurement in the folder."""


@dataclass(frozen=True)
class BenchConfig(CommandConfig):
    """Measure what a KD step costs: plain, under a rule, with an agent that learns or acts; or what agents learn."""

    run: RunConfig = field(default_factory=RunConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    bench: BenchOptions = field(default_factory=BenchOptions)
    trust: TrustConfig = field(default_factory=TrustConfig)

    presets = "bench"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bench.learning and self.bench.data:
            raise UsageError("--learning and --data are measurements of their own: choose one of them")
