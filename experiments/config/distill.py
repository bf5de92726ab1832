"""Options of ``rlkd distill``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.config.choice import ANNEAL, PRETRAINED, AgentChoice, Choice, RuleChoice, SavedPolicy
from experiments.config.common import CommandConfig, FileName, PresetName
from rlkd_env.errors import UsageError
from rlkd_env.runs.config import RunConfig
from rlkd_env.sampling.settings import Exploration
from rlkd_env.utils.choices import DEFAULT_WIDTH, Acting, ActionScale, BatchContent
from rlkd_env.utils.options import Count, NameOf, NonNegative, NonNegativeInt, Options, OptionValue, Positive

_ONE_OF_THEM = tyro.conf.create_mutex_group(required=False, title="who sets the temperatures, one of")
_RULE = NameOf("agents.rules.create:RULES")


@dataclass(frozen=True)
class AgentConfig(Options):
    """How the temperatures are set."""

    agent: Annotated[str | None, NameOf("agents.sb3.make:AGENTS"), _ONE_OF_THEM, tyro.conf.arg(metavar="NAME")] = None
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
    """A rule that the agent acts around: it changes the rule's temperatures instead of choosing its own. It is one of
    those of --rule that neither learn along nor draw at random. The warm-up is then the rule's. With None the agent
    chooses temperatures between --temperature-min and --temperature-max."""
    around_options: dict[str, OptionValue] = field(default_factory=dict)
    """Arguments of the rule that the agent acts around, as --rule-options."""
    around_width: Positive = DEFAULT_WIDTH
    """Logarithm of the most that the agent multiplies or divides the rule's temperatures by; 0.693 is twice."""
    fixed_temperature: Annotated[float | str, tyro.conf.arg(metavar="T")] = 4.0
    """Temperature of the rule fixed, and of the warm-up of an agent that acts around no rule; with suffix s in standard
    deviations of the teacher's logits."""
    warmup_epochs: NonNegativeInt = 10
    """Epochs before the agent takes over, at the temperatures of the rule that it acts around, or the fixed one."""
    bandit: bool = False
    """The agent looks no further than the next reward (discount 0)."""
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
        return SavedPolicy(PRETRAINED, label=PRETRAINED) if self.agent == PRETRAINED else self._learning()

    @property
    def rule_or_default(self) -> str | None:
        """The rule that sets the temperatures, which is annealing if nobody is named; None if no rule does."""
        return ANNEAL if self.rule is self.policy is self.agent is None else self.rule

    @property
    def _learns(self) -> bool:
        return self.rule is None and self.policy is None and self.agent not in (None, PRETRAINED)

    def _check_unused(self) -> None:
        changed = (self.calibrator, self.acting) != (type(self).calibrator, type(self).acting)
        if self.bandit or self.agent_options or changed:
            raise UsageError(
                "--bandit, --agent-options, --calibrator and --acting are for an agent that learns, such as --agent ppo"
            )

    def _learning(self) -> AgentChoice:
        around = self.around is not None
        warm_up = RuleChoice(self.around, self.around_options, self.fixed_temperature) if self.around else self.fixed
        scale, width = self.temperature_scale, self.around_width
        return AgentChoice(str(self.agent), self.agent_options, self.bandit, warm_up, around, width, scale)


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
    uncertain_ranks: tuple[float, float] = Exploration.uncertain_ranks
    """Ranks of the uncertain images, as shares of all images from uncertain to confident."""
    confident_ranks: tuple[float, float] = Exploration.confident_ranks
    """Ranks of the confident images that the uncertain ones are mixed into."""
    uncertain_shares: tuple[float, float] = (Exploration.first_share, Exploration.last_share)
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
class OutputConfig(Options):
    """Where results go, and how a run starts, stops and goes on."""

    seed: NonNegativeInt = 0
    """Seed of student, batches and agent."""
    out: str = "auto"
    """Folder of the run; auto is runs/DATASET-METHOD-AGENT-seedN."""
    overwrite: bool = False
    """Replace the run in the folder."""
    resume: bool = False
    """Go on with the run in the folder, with the settings it was started with."""
    config: FileName = None
    """JSON or YAML file with any of these options as keys; the command line comes before it."""
    preset: PresetName = None
    """Ready-made config by name, such as paper (the paper's phases, range and length) or
    cifar100/resnet56-resnet20/dkd; a wrong name lists all. --config and options come before it."""
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
    """Distil a teacher into a student while an RL agent sets the temperature of every training instance."""

    agent: AgentConfig = field(default_factory=AgentConfig)
    run: RunConfig = field(default_factory=RunConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    output: OutputConfig = field(default_factory=OutputConfig)

    presets = "distill"

    def settings(self) -> dict[str, Any]:
        """Return the options that determine the results, with the rule that sets temperatures if nobody was named."""
        return {**super().settings(), "rule": self.agent.rule_or_default}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.exploration.settings(self.run.recipe.epochs)  # what does not go together is told where it is read
        _ = self.agent.choice

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        if self.output.out != "auto":
            return Path(self.output.out)
        dataset, method = (name.rpartition(":")[2] for name in (self.run.data.dataset, self.run.distillation.method))
        return Path("runs") / f"{dataset}-{method}-{self.agent.choice.label}-seed{self.output.seed}"
