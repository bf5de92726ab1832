"""Options of ``rlkd compare``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from experiments.config.common import CommandConfig, FileName, PresetName, TrustConfig
from experiments.config.distill import AgentConfig, ExplorationConfig
from rlkd_env.errors import UsageError
from rlkd_env.runs.config import RunConfig
from rlkd_env.utils.options import LARGEST, MOST_PROCESSES, Bounds, NonNegativeInt, Options, TemperatureText, Threads

TemperatureName = Annotated[str, TemperatureText()]
ExecutorName = Literal["processes", "serial", "ray"]


@dataclass(frozen=True)
class CompareOptions(Options):
    """What is compared: arms on tasks, each with the same seeds."""

    rules: tuple[str, ...] = ()
    """Arms with these rules; all takes every rule. fixed is the arm T=4, after --fixed-temperature."""
    fixed_temperatures: tuple[TemperatureName, ...] = ()
    """Arms T=1, T=2, ... with these fixed temperatures; with suffix s in teacher-logit deviations."""
    agents: tuple[str, ...] = ()
    """Arms with these agents, one for each of --calibrators."""
    calibrators: tuple[str, ...] = ()
    """Calibrators of the agents, in arms such as ppo-uniform; none takes --calibrator, in arms such as ppo."""
    policies: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME FILE ...")] = field(default_factory=dict)
    """Arms with saved policies that act frozen, as NAME FILE pairs."""
    student_alone: bool = False
    """An arm student_alone too: the same student without a teacher."""
    arms: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME OPTIONS ...")] = field(default_factory=dict)
    """Further arms as NAME OPTIONS pairs: options of rlkd distill, in YAML such as '{rule: lskd}'; a preset is one."""
    tasks: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME OPTIONS ...")] = field(default_factory=dict)
    """Tasks, likewise; they come before the options of this command, and arms before both. None means one task, of
    the data set's name. A task may also say seeds, without (arms that it leaves out) and arms (its own)."""
    seeds: Annotated[int, Bounds(at_least=1, unit="seed")] = 10
    """Seeds of every arm: students start and batches are drawn alike in all arms."""
    first_seed: NonNegativeInt = 0
    """The first of them."""
    baseline: str = "auto"
    """Arm that differences are taken to; auto is that of --fixed-temperature, added if it is missing."""
    executor: ExecutorName = "processes"
    """Who makes the runs: worker processes, this process (serial), or a Ray cluster that shares the folder."""
    jobs: Annotated[int, Bounds(at_least=0, at_most=MOST_PROCESSES)] = 0
    """Runs at a time; 0 means as many as there are cores. Ray takes what the cluster has."""
    threads: Threads = 1
    """Threads of every run on a CPU."""
    together: bool = False
    """Compute runs of a task and seed that differ in nothing but a rule or saved policy as one, where that is faster.
    Their students are the same up to rounding; what each of them costs is then not known."""
    out: str = "auto"
    """Folder of the comparison; auto is comparisons/NAME of the preset or config file, or of the data set."""
    force: bool = False
    """Go on with teachers that are hardly better than chance."""
    overwrite: bool = False
    """Replace runs in the folder that were made with other settings. Runs with the same ones are never repeated."""
    preset: PresetName = None
    """Ready-made comparison: all, digits, fashion_mnist, cifar100 or digits_detection."""
    config: FileName = None
    """JSON or YAML file with any of these options as keys; the command line comes before it."""
    only: tuple[str, ...] = ()
    """Make only these of the missing runs now: TASK, TASK/ARM or TASK/ARM/seedN, with wildcards such as '*/T=*'."""
    tensorboard: bool = False
    """Write TensorBoard's curves of every run."""
    dry_run: bool = False
    """Check all options, say how many runs would be made and how long they would take, and stop."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first_seed + self.seeds - 1 > LARGEST:
            raise UsageError(f"seeds must be at most {LARGEST}, not {self.first_seed + self.seeds - 1}")


@dataclass(frozen=True)
class CompareConfig(CommandConfig):
    """Compare rules, agents and policies over tasks and seeds; the same command goes on with a comparison that stopped.

    The options of `rlkd distill` hold for all tasks and arms.
    """

    comparison: CompareOptions = field(default_factory=CompareOptions)
    agent: AgentConfig = field(default_factory=AgentConfig)
    run: RunConfig = field(default_factory=RunConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    trust: TrustConfig = field(default_factory=TrustConfig)

    presets = "compare"

    def common(self) -> dict[str, Any]:
        """Return the options of ``rlkd distill`` that hold for all tasks and arms."""
        return {**self.agent.as_keywords(), **self.run.as_keywords(), **self.exploration.as_keywords()}

    @property
    def folder(self) -> Path:
        """Folder of the comparison."""
        options = self.comparison
        if options.out != "auto":
            return Path(options.out)
        named = Path(options.config).stem if options.config else options.preset
        return Path("comparisons") / (named or self.run.data.dataset.rpartition(":")[2])
