"""Options of ``rlkd distill``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from experiments.config.common import CommandConfig
from rlkd_env.instances.actions import DEFAULT_WIDTH, ActionScale
from rlkd_env.runs.config import OptionValue, RunConfig
from rlkd_env.sampling.exploration import BatchContent, Exploration


@dataclass(frozen=True)
class AgentConfig:
    """Who sets the temperatures."""

    agent: str = "pretrained"
    """Learns online: ppo, a2c, sac, td3 or ddpg; with sb3-contrib also tqc, crossq and trpo. Or pretrained: the policy
    of the package, which was learned on other runs and acts frozen."""
    policy: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """A saved policy (folder, policy.json or policy.safetensors) that acts frozen in place of an agent; pretrained is
    the one that comes with the package."""
    rule: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """A rule that acts in place of an agent: fixed (plain KD), linear, cosine, random, public_agent, entropy,
    difficulty, lskd, normkd, ttm, wttm, dtkd or ctkd. lskd's KL weight is --method-options kd_weight 9."""
    rule_options: Annotated[dict[str, OptionValue], tyro.conf.arg(metavar="NAME VALUE ...")] = field(
        default_factory=dict
    )
    """Arguments of the rule as NAME VALUE pairs, such as tau 2 or low 0.5s high 4s; a wrong name lists all."""
    around: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """A rule that the agent acts around, changing its temperatures in place of choosing them from nothing: one of those
    of --rule that neither learn along nor draw at random. The warm-up is then the rule's."""
    around_options: Annotated[dict[str, OptionValue], tyro.conf.arg(metavar="NAME VALUE ...")] = field(
        default_factory=dict
    )
    """Arguments of that rule, as --rule-options."""
    around_width: float = DEFAULT_WIDTH
    """Logarithm of the most that the agent multiplies or divides the rule's temperatures by; 1.386 is four times."""
    fixed_temperature: Annotated[float | str, tyro.conf.arg(metavar="T")] = 4.0
    """Temperature of the warm-up and of the rule fixed; with suffix s in teacher-logit deviations."""
    warmup_epochs: int = 10
    """Epochs at the fixed temperature before the agent takes over."""
    bandit: bool = False
    """The agent looks no further than the next reward (discount 0)."""
    temperature_scale: ActionScale = "log"
    """How the agent's actions in [-1, 1] map to temperatures."""
    calibrator: str = "return_decomposition"
    """How the batch reward is shared out among the instances: return_decomposition (the paper's), uniform (not at all),
    last_layer, gradient, or counterfactual."""
    learn_interval: int = 1
    """Epochs from one in which the agent learns to the next; between, it acts without learning. The paper's is 20."""
    learn_last_epoch: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Last epoch in which the agent learns, counted from 1; None means the run's last."""
    agent_options: Annotated[dict[str, OptionValue], tyro.conf.arg(metavar="NAME VALUE ...")] = field(
        default_factory=dict
    )
    """Arguments of the agent's class as NAME VALUE pairs, such as learning_rate 3e-4 n_steps 32."""


@dataclass(frozen=True)
class ExplorationConfig:
    """Efficient exploration: some epochs draw images by the student's entropy and mix them."""

    explore: bool = True
    """Whether to explore while an agent learns."""
    explore_first_epoch: int = 20
    """First epoch that explores, counted from 1; the epochs before it gather the history. A shorter run does not
    explore."""
    explore_last_epoch: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Last epoch that may explore; None means that the last tenth of the run does not, as a student that ends with an
    epoch on a few mixed images is a worse one."""
    explore_interval: int = 20
    """Epochs from one that explores to the next."""
    explore_batches: BatchContent = "pairs"
    """What an exploring epoch draws: the mixed pairs alone, or all images with the mixed ones among them."""
    uncertain_ranks: tuple[float, float] = (0.1, 0.2)
    """Ranks of the uncertain images, as shares of all images from uncertain to confident."""
    confident_ranks: tuple[float, float] = (0.8, 0.9)
    """Ranks of the confident images that the uncertain ones are mixed into."""
    uncertain_shares: tuple[float, float] = (1.0, 0.7)
    """Share of the uncertain image in the first and in the last pair."""

    def settings(self, epochs: int) -> Exploration | None:
        """Return the exploration of a run of so many epochs, or None without one.

        Raises:
            UsageError: if a setting is out of its range.
        """
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
class OutputConfig:
    """Where results go, and how a run starts, stops and goes on."""

    seed: int = 0
    """Seed of student, batches and agent."""
    out: str = "auto"
    """Folder of the run; auto is runs/DATASET-METHOD-AGENT-seedN."""
    overwrite: bool = False
    """Replace the run in the folder."""
    resume: bool = False
    """Go on with the run in the folder, with the settings it was started with."""
    config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON or YAML file with any of these options as keys; the command line comes before it."""
    preset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Ready-made config by name, such as paper (the paper's phases, range and length) or
    cifar100/resnet56-resnet20/dkd; a wrong name lists all. --config and options come before it."""
    student_alone: bool = False
    """Also train the same student without a teacher, from the same start on the same batches, and report it."""
    checkpoint_seconds: float = 30.0
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

    @property
    def chooser(self) -> str:
        """Short name of who sets the temperatures."""
        acting = self.agent.agent if self.agent.around is None else f"{self.agent.agent}-around-{self.agent.around}"
        return self.agent.rule or ("policy" if self.agent.policy else acting)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        if self.output.out != "auto":
            return Path(self.output.out)
        dataset = self.run.dataset.rpartition(":")[2]
        return Path("runs") / f"{dataset}-{self.run.method}-{self.chooser}-seed{self.output.seed}"
