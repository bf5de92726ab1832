"""Options of ``rlkd train-agent``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from experiments.config.common import CommandConfig, FileName, PresetName, TrustConfig
from rlkd_env.utils.choices import COEFFICIENT_FEATURES, DECISIONS, PolicyForm, RunMode
from rlkd_env.utils.options import (
    Bounds,
    Count,
    NonNegative,
    NonNegativeInt,
    Options,
    OptionValue,
    Positive,
    Seed,
    TemperatureOption,
    UnitInterval,
)


@dataclass(frozen=True)
class TrainingConfig(Options):
    """What is trained, on which runs, and for how long."""

    agent: str = "cma"
    """Who learns: cma (evolution on how the students end), or an agent of rlkd distill (ppo, sac, ...), paid with the
    fall of the log probe loss."""
    instances: str = "digits"
    """Instance set: a YAML file, or the name of one that comes with the package (digits, digits300, diverse, many)."""
    coefficient_features: tuple[str, ...] = COEFFICIENT_FEATURES
    """Features of an instance that have a coefficient in log T; a wrong name lists all."""
    form: PolicyForm = "linear"
    """What evolution lets the coefficients depend on: nothing (constant), the run's progress (linear), or also, that of
    the constant, how near the student is to the teacher (context). With instances the constant has none and the
    features' follow the progress, so that the level of temperatures stays annealing's. An agent's network sees all."""
    num_runs: Annotated[int, Bounds(at_least=1, at_most=100_000)] = 48
    """Runs at once of every instance; evolution adds those of the schedule that its candidates are held against."""
    updates: Annotated[int, Bounds(at_least=1, unit="update")] = 40
    """Generations of evolution, or updates of an agent."""
    minutes: Annotated[Positive | None, tyro.conf.arg(metavar="MINUTES")] = None
    """Time after which training ends, if it comes before the updates' end."""
    population: Annotated[int, Bounds(at_least=4, at_most=1000)] = 12
    """Candidates a generation of evolution; each has num_runs / population runs, with the same seeds for all."""
    fitness: str = "confidence"
    """What evolution looks at on the probe images at a run's end: loss, confidence (mean probability of the true class)
    or accuracy."""
    initial_deviation: Positive = 0.1
    """Deviation of evolution's first candidates around coefficients of 0, which are the annealed schedule."""
    penalty: NonNegative = 0.5
    """What the sum of a candidate's squared parameters costs, where 1 is the deviation over seeds of what counts: keeps
    coefficients small that gain nothing."""
    instances_per_update: Annotated[Count | None, tyro.conf.arg(metavar="COUNT")] = None
    """Instances, drawn anew for every generation, that evolution's candidates run on; None takes all."""
    probe_images: Annotated[int, Bounds(at_least=1, unit="image")] = 1000
    """Images that fitness and reward are measured on: the probe, and as many as there are of those that neither train
    the student nor validate nor test it."""
    decisions: Count = DECISIONS
    """Actions of an agent a run, each held for an equal part of its updates."""
    coefficient_scale: Positive = 0.5
    """Coefficient at an agent's action of 1."""
    discount: UnitInterval = 1.0
    """Discount of an agent's rewards from one decision to the next."""
    agent_options: dict[str, OptionValue] = field(default_factory=dict)
    """Arguments of the agent's class as NAME VALUE pairs, such as learning_rate 3e-4."""
    run_mode: RunMode = "auto"
    """How several runs are computed: stacked, workers, serial, or auto for the fastest."""
    sweep: tuple[TemperatureOption, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0)
    """Fixed temperatures that the policy is compared with on the held-out runs; with suffix s in deviations of the
    teacher's logits."""
    evaluation_interval: NonNegativeInt = 10
    """Updates from one look at the held-out runs' validation images to the next; 0 looks only at the end."""
    device: str = "auto"
    """Device such as cpu or cuda:0; auto takes a GPU where there is one."""
    seed: Seed = 0
    """Seed of the training."""


@dataclass(frozen=True)
class TrainingOutputConfig(Options):
    """Where the policy goes, and how a training starts, stops and goes on."""

    out: str = "auto"
    """Folder for policy, summary and curves; auto is runs/agent-INSTANCES-AGENT-seedN."""
    overwrite: bool = False
    """Replace the training in the folder."""
    resume: bool = False
    """Go on with the training in the folder, with the settings it was started with."""
    config: FileName = None
    """JSON or YAML file with any of these options as keys; the command line comes before it."""
    preset: PresetName = None
    """Ready-made config by name, such as digits or pretrained; a wrong name lists all."""
    checkpoint_seconds: NonNegative = 30.0
    """Least time between two checkpoints."""
    progress: bool = True
    """Show a progress bar."""


@dataclass(frozen=True)
class TrainAgentConfig(CommandConfig):
    """Train a temperature policy over many runs, for `rlkd distill --policy`, and compare it on held-out ones."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    output: TrainingOutputConfig = field(default_factory=TrainingOutputConfig)
    trust: TrustConfig = field(default_factory=TrustConfig)

    presets = "train-agent"

    @property
    def folder(self) -> Path:
        """Folder of the training."""
        if self.output.out != "auto":
            return Path(self.output.out)
        options = self.training
        return Path("runs") / f"agent-{Path(options.instances).stem}-{options.agent}-seed{options.seed}"
