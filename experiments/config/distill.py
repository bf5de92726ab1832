"""Options of ``rlkd distill``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.config.choice import ANNEAL, PRETRAINED, AgentChoice, Around, Choice, RuleChoice, SavedPolicy
from experiments.config.common import CommandConfig, FileName, PresetName, TrustConfig, config_hash, without_bookkeeping
from rlkd_env.errors import UsageError
from rlkd_env.runs.config import RunConfig
from rlkd_env.sampling.settings import Exploration
from rlkd_env.utils.choices import (
    AGENT_WIDTH,
    Acting,
    ActionScale,
    AroundLevel,
    BatchContent,
    Keep,
    KeepEpoch,
    KeptEpoch,
    RunMode,
    TrackerName,
)
from rlkd_env.utils.options import (
    Bounds,
    Count,
    NameOf,
    NonNegative,
    NonNegativeInt,
    Options,
    OptionValue,
    Positive,
    Seed,
    Share,
    TemperatureOption,
    UnitInterval,
)

_USUAL_RUN = 240
"""Epochs of the usual CIFAR-100 recipe; shorter runs with its warm-up are trials of it."""
_ONE_OF_THEM = tyro.conf.create_mutex_group(required=False, title="who sets the temperatures, one of")
_IN_NAME = ("dataset", "method", "agent", "policy", "rule", "seed", "population", "device")
"""Options that a folder's name tells, or that make no other run."""
_Population = Annotated[int, Bounds(at_least=2, at_most=1000, unit="students")]
_RULE = NameOf("agents.rules.create:RULES")
_AGENT = NameOf("agents.sb3.families:AGENTS")


@dataclass(frozen=True)
class AgentConfig(Options):
    """How the temperatures are set."""

    agent: Annotated[str | None, NameOf("agents.sb3.families:AGENTS"), _ONE_OF_THEM, tyro.conf.arg(metavar="NAME")] = (
        None
    )
    """An agent that learns online: ppo, a2c, sac, td3 or ddpg; with sb3-contrib also tqc, crossq and trpo. Or
    pretrained: the policy of the package, which was learned on other runs and acts frozen."""
    policy: Annotated[str | None, _ONE_OF_THEM, tyro.conf.arg(metavar="FILE")] = None
    """A saved policy (folder, policy.json or policy.safetensors) that acts frozen; pretrained is the one that comes
    with the package."""
    rule: Annotated[str | None, _RULE, _ONE_OF_THEM, tyro.conf.arg(metavar="NAME")] = None
    """A rule: anneal (if nothing else is chosen), fixed (plain KD), linear, cosine, dts, random, public_agent, entropy,
    difficulty, lskd, normkd, ttm, wttm, dtkd or ctkd. lskd's KL weight is --method-options kd_weight 9."""
    rule_options: dict[str, OptionValue] = field(default_factory=dict)
    """Arguments of the rule as NAME VALUE pairs, such as tau 2 or low 0.5s high 4s; a wrong name lists all."""
    around: Annotated[str | None, _RULE, tyro.conf.arg(metavar="NAME")] = ANNEAL
    """What the agent acts around: it changes the temperatures of a rule or a policy instead of choosing its own. A rule
    of --rule that neither learns along nor draws at random, pretrained, or a saved policy (folder, policy.json or
    policy.safetensors), which also sets the temperatures of the warm-up. With None the agent chooses temperatures
    between --temperature-min and --temperature-max."""
    around_options: dict[str, OptionValue] = field(default_factory=dict)
    """Arguments of the rule that the agent acts around, as --rule-options."""
    around_width: Positive = AGENT_WIDTH
    """Logarithm of the most that the agent multiplies or divides those temperatures by; the default is √2 times, 0.693
    twice."""
    around_level: AroundLevel = "keep"
    """Whether the mean of the batch's log temperatures stays that of the rule (keep), so that the agent shares them out
    among the instances, or the agent may move it (free)."""
    fixed_temperature: Annotated[TemperatureOption, tyro.conf.arg(metavar="T")] = 4.0
    """Temperature of the rule fixed, and of the warm-up of an agent that acts around nothing; with suffix s in standard
    deviations of the teacher's logits."""
    warmup_epochs: NonNegativeInt = 10
    """Epochs before the agent takes over, at the temperatures that it acts around, or the fixed one."""
    discount: UnitInterval = 0.0
    """The agent's discount of rewards. At 0 it looks no further than an update's own: its instances do not come again
    in the next one. The paper's is 0.99."""
    temperature_scale: ActionScale = "log"
    """How the agent's actions in [-1, 1] map to temperatures."""
    calibrator: Annotated[str, NameOf("rlkd_env.credit.create:CALIBRATORS")] = "return_decomposition"
    """How the batch reward is shared out among the instances: return_decomposition (the paper's), uniform (not at all),
    last_layer, gradient, or counterfactual."""
    learn_interval: Count = 1
    """Epochs from one in which the agent learns to the next; between, it acts without learning. The paper's is 20."""
    learn_last_epoch: Annotated[NonNegativeInt | None, tyro.conf.arg(metavar="INT")] = None
    """Last epoch in which the agent learns, counted from 1; None means the run's last."""
    acting: Acting = "mean"
    """How the agent acts in the epochs in which it does not learn: by its policy's mean, or by samples from its
    policy's distribution, as the paper's public code does."""
    agent_options: dict[str, OptionValue] = field(default_factory=dict)
    """Arguments of the agent's class as NAME VALUE pairs, such as learning_rate 3e-4 n_steps 32."""

    @property
    def fixed(self) -> RuleChoice:
        """The fixed temperature, as a rule."""
        return RuleChoice("fixed", {}, self.fixed_temperature)

    @property
    def choice(self) -> Choice:
        """Who sets the temperatures: the rule if there is one, else the policy, else the agent, else annealing."""
        if self.policy is not None and self.rule is not None:
            raise UsageError("--policy and --rule exclude each other")
        if self.rule_options and self.rule_or_default is None:
            raise UsageError("--rule-options needs a --rule that takes them")
        if self.around not in (None, ANNEAL) and not self._learns:
            raise UsageError(
                "--around is for an agent that learns, such as --agent ppo: it excludes --policy and --rule"
            )
        if self.around_options and (self.around is None or not self._learns):
            raise UsageError("--around-options needs an agent that learns, such as --agent ppo, and an --around")
        if self.rule is self.policy is None and self.agent in (None, PRETRAINED):
            self._check_unused()
        if self.rule_or_default is not None:
            return RuleChoice(self.rule_or_default, self.rule_options, self.fixed_temperature)
        if self.policy is not None:
            return SavedPolicy(self.policy)
        return SavedPolicy(PRETRAINED) if self.agent == PRETRAINED else self._learning()

    @property
    def rule_or_default(self) -> str | None:
        """The rule that sets the temperatures, which is annealing if nobody is named; None if no rule does."""
        return ANNEAL if self.rule is self.policy is self.agent is None else self.rule

    @property
    def _learns(self) -> bool:
        return self.rule is None and self.policy is None and self.agent not in (None, PRETRAINED)

    def _check_unused(self) -> None:
        own = ("discount", "calibrator", "acting")
        if self.agent_options or any(getattr(self, name) != getattr(type(self), name) for name in own):
            raise UsageError(
                "--discount, --agent-options, --calibrator and --acting are for an agent that learns, such as "
                "--agent ppo"
            )

    def _learning(self) -> AgentChoice:
        warm_up = self.fixed if self.around is None else self._acted_around(self.around)
        around = None if self.around is None else Around(self.around_width, self.around_level)
        return AgentChoice(str(self.agent), self.agent_options, self.discount, warm_up, around, self.temperature_scale)

    def _acted_around(self, name: str) -> RuleChoice | SavedPolicy:
        """Return the policy of the package, that of a path that is no rule's name, or else a rule."""
        is_policy = name == PRETRAINED or "/" in name or (Path(name).exists() and not _is_rule(name))
        if not is_policy:
            return RuleChoice(name, self.around_options, self.fixed_temperature)
        if self.around_options:
            raise UsageError(f"--around-options are a rule's, and {name} is a policy")
        return SavedPolicy(name)


def _is_rule(name: str) -> bool:
    from agents.rules.create import RULES  # which takes long to import

    return name in RULES


@dataclass(frozen=True)
class ExplorationConfig(Options):
    """Efficient exploration: some epochs draw images by the student's entropy and mix them."""

    explore: bool = True
    """Whether to explore while an agent learns."""
    explore_first_epoch: Count = Exploration.first_epoch
    """First epoch that explores, counted from 1; the epochs before it gather the history. A shorter run does not
    explore."""
    explore_last_epoch: Annotated[Count | None, tyro.conf.arg(metavar="INT")] = None
    """Last epoch that may explore; None means that the last tenth of the run does not, as a student whose last epoch
    is on a few mixed images is a worse one."""
    explore_interval: Count = Exploration.interval
    """Epochs from one that explores to the next."""
    explore_batches: BatchContent = Exploration.batches
    """What an exploring epoch draws: the mixed pairs alone, or all images with the mixed ones among them."""
    uncertain_ranks: tuple[UnitInterval, UnitInterval] = Exploration.uncertain_ranks
    """Ranks of the uncertain images, as shares of all images from uncertain to confident."""
    confident_ranks: tuple[UnitInterval, UnitInterval] = Exploration.confident_ranks
    """Ranks of the confident images that the uncertain ones are mixed into."""
    uncertain_shares: tuple[Share, Share] = (Exploration.first_share, Exploration.last_share)
    """Share of the uncertain image in the first and in the last pair."""

    def settings(self, epochs: int) -> Exploration | None:
        """Return the exploration of a run of so many epochs, or None without one."""
        last = self.explore_last_epoch
        if last is None:
            last = int(0.9 * epochs)
        if not self.explore or (self.explore_last_epoch is None and last < self.explore_first_epoch):
            return None
        return Exploration(
            uncertain_ranks=self.uncertain_ranks,
            confident_ranks=self.confident_ranks,
            first_share=self.uncertain_shares[0],
            last_share=self.uncertain_shares[1],
            first_epoch=self.explore_first_epoch,
            last_epoch=last,
            interval=self.explore_interval,
            batches=self.explore_batches,
        )


@dataclass(frozen=True)
class PopulationConfig(Options):
    """Several students in one run, which start alike, see the same batches and differ in their temperatures alone."""

    population: Annotated[_Population | None, tyro.conf.arg(metavar="INT")] = None
    """Students of the run, whose temperatures are swept: with --rule fixed over the temperature range, with anneal, the
    default, around the rule's own. With an agent it acts for all of them."""
    members: tuple[str, ...] = ()
    """Temperatures of the students in place of a sweep: 2 4 8s with --rule fixed, or FIRST:LAST, such as 3s:0.35s, with
    anneal, linear, cosine or dts."""
    keep: Keep = "best"
    """What becomes of the population: its best student on the validation images, the average of all students' weights,
    or the ensemble of their probabilities. All three are measured."""
    run_mode: RunMode = "auto"
    """How a population is computed: as one (stacked), in processes (workers), or one student after the other (serial);
    auto measures which is the fastest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        named = len(self.members)
        if named and self.population not in (None, named):
            raise UsageError(f"the temperatures of {named} --members are named for a --population of {self.population}")
        if named == 1:
            raise UsageError("a population needs at least 2 --members")
        if not self.size and (self.keep, self.run_mode) != (type(self).keep, type(self).run_mode):
            raise UsageError("--keep and --run-mode are for a --population")

    @property
    def size(self) -> int:
        """Number of students, or 0 for a run of one."""
        return self.population or len(self.members)

    def check(self, choice: Choice, agent: AgentConfig, explores: bool) -> None:
        """Check that there can be a population with what sets the temperatures.

        Raises:
            UsageError: if there cannot; the message says what to choose instead.
        """
        if isinstance(choice, RuleChoice):
            if self.members:
                choice.members(self.members)
            else:
                choice.check_sweep()
        elif not isinstance(choice, AgentChoice):
            raise UsageError(
                "the members of a population with one policy would all be the same student: choose --rule fixed, "
                "--rule anneal, or an agent that learns, such as --agent ppo"
            )
        elif self.members:
            raise UsageError("--members are temperatures of a rule: an agent chooses them for all students")
        elif agent.calibrator != "uniform" or explores:
            raise UsageError(
                "an agent of a population needs --calibrator uniform, as every student has a reward of its own, and "
                "--no-explore, as all see the same images"
            )


@dataclass(frozen=True)
class OutputConfig(Options):
    """Where results go, and how a run starts, stops and goes on."""

    seed: Seed = 0
    """Seed of student, batches and agent."""
    out: str = "auto"
    """Folder of the run; auto is runs/DATASET-METHOD-AGENT-seedN, with what differs from the default options in it."""
    dry_run: bool = False
    """Build everything, say what would be made, what it would cost and where it would go, and stop."""
    overwrite: bool = False
    """Replace the run in the folder."""
    force: bool = False
    """Go on with a teacher that is hardly better than chance."""
    patience: Annotated[Count | None, tyro.conf.arg(metavar="INT")] = None
    """Stop after so many epochs without a better student on the validation images; None makes all epochs."""
    resume: bool = False
    """Go on with the run in the folder, with the settings it was started with."""
    config: FileName = None
    """JSON or YAML file with any of these options as keys; the command line comes before it."""
    preset: PresetName = None
    """Ready-made config by name, such as paper (the paper's phases, range and length) or
    cifar100/resnet56-resnet20/dkd; a wrong name lists all. --config and options come before it."""
    track: TrackerName | None = None
    """Collect settings and figures with Weights & Biases (wandb) or MLflow (mlflow), too, where it is installed; where
    that keeps them is its own to say (WANDB_MODE=offline, MLFLOW_TRACKING_URI)."""
    keep_epoch: KeepEpoch = "auto"
    """Which student is kept as student.safetensors: that of the last epoch, or that of the best one on the validation
    images; both lie beside it, too. auto is the last one, which was better on average over all tasks tried, but
    with --patience the best one."""
    student_alone: bool = False
    """Also train the same student without a teacher, from the same start on the same batches, and report it."""
    checkpoint_seconds: NonNegative = 30.0
    """Least time between two checkpoints."""
    progress: bool = True
    """Show a progress bar."""
    tensorboard: bool = True
    """Write TensorBoard's curves, which on small students take longer than the run itself."""


@dataclass(frozen=True)
class DistillConfig(CommandConfig):
    """Distil a teacher into a student; a schedule, a rule or an RL agent sets the temperature of every instance."""

    agent: AgentConfig = field(default_factory=AgentConfig)
    run: RunConfig = field(default_factory=RunConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    population: PopulationConfig = field(default_factory=PopulationConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    trust: TrustConfig = field(default_factory=TrustConfig)

    presets = "distill"

    def settings(self) -> dict[str, Any]:
        """Return the options that determine the results, with the rule that sets temperatures if nobody was named.

        Those of a population are left out where there is none, and how it is computed is no result.
        """
        left_out = ["run_mode"] if self.population.size else PopulationConfig.option_names()
        told = {name: value for name, value in super().settings().items() if name not in left_out}
        return {**told, "rule": self.agent.rule_or_default}

    def __post_init__(self) -> None:
        super().__post_init__()
        epochs, warmup = self.run.recipe.epochs, self.agent.warmup_epochs
        if warmup > max(epochs, _USUAL_RUN):
            raise UsageError(f"a warm-up of {warmup} epochs does not fit into a run of {epochs}: no agent would act")
        exploration = self.exploration.settings(epochs)  # what does not go together is told where it is read
        choice = self.agent.choice
        if self.population.size:
            self.population.check(choice, self.agent, exploration is not None and exploration.first_epoch <= epochs)

    @property
    def kept_epoch(self) -> KeptEpoch:
        """Whose student is kept."""
        if self.output.keep_epoch != "auto":
            return self.output.keep_epoch
        return "last" if self.output.patience is None else "best"

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        if self.output.out != "auto":
            return Path(self.output.out)
        dataset, method = (name.rpartition(":")[2] for name in (self.run.data.dataset, self.run.distillation.method))
        label = self.agent.choice.label + (f"-population{self.population.size}" if self.population.size else "")
        return Path("runs") / f"{dataset}-{method}-{label}{self._told_changes()}-seed{self.output.seed}"

    def _told_changes(self) -> str:
        """Return what tells a run from the usual one: its preset, and what differs, or a short hash if it is more."""
        from experiments.config.presets import read_layers

        preset, dataset = self.output.preset, self.run.data.dataset
        below = read_layers(preset, None, self.presets, self.option_names(), dataset)
        named = f"-{preset.replace('/', '-')}" if preset not in (None, dataset) else ""
        usual = {**without_bookkeeping(PopulationConfig().as_keywords()), **DistillConfig().replaced(below).settings()}
        changed = {
            name: value
            for name, value in self.settings().items()
            if name not in _IN_NAME and value != usual.get(name, value)
        }
        if not changed:
            return named
        ((name, value), *others) = changed.items()
        if not others and isinstance(value, bool | int | float):
            return f"{named}-{name}" if value is True else f"{named}-{name}-{value}"
        return f"{named}-{config_hash(changed)[:6]}"
