"""The arms of ``rlkd bench``: plain KD in a hand-written loop, and runs with rules, agents and calibrators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from agents.learned.loading import PRETRAINED
from agents.rules.simple import FixedTemperature
from agents.sb3.divergence import noticing_divergence
from agents.sb3.export import export_policy, export_sampling_policy
from agents.sb3.make import continue_from, make_agent
from agents.sb3.threads import HostThreads
from experiments.commands.bench.benched_run import build_bench_run
from experiments.commands.bench.plain_kd import TEMPERATURE, plain_kd
from experiments.commands.bench.rounds import Arm, LeftOut
from experiments.config import BenchConfig, DistillConfig
from experiments.config.presets import read_preset
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.methods import METHODS
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.choices import ActionScale
from rlkd_env.utils.registry import Registry
from rlkd_env.wrappers import CalibratedReward, TemperatureAction

_UNIT = 16
"""Updates that belong together: for so many a GPU makes the batches ahead, and agents without rollouts do not care."""


@dataclass(frozen=True)
class Bench:
    """The options, and the run that they describe, whose networks and data all arms share; it is never started."""

    config: BenchConfig
    template: DistillationRun

    def started_run(self) -> DistillationRun:
        """Return a run of its own, which has begun."""
        run = self.template.sibling()
        run.reset(0)
        return run

    @property
    def unit(self) -> int:
        """Updates that belong together."""
        return _UNIT if self.template.device.type == "cuda" else 1


ARMS: Registry[Callable[[Bench], Arm]] = Registry("arm")


@ARMS.register("plain_kd")
def _plain_kd(bench: Bench) -> Arm:
    """Knowledge distillation at one temperature and nothing else, with the same engine."""
    return Arm.of(plain_kd(bench.template, bench.template.task.engine))


@ARMS.register("fixed")
def fixed(bench: Bench) -> Arm:
    """A run with the rule that gives every instance the same temperature."""
    return Arm.of(partial(bench.started_run().advance, FixedTemperature(TEMPERATURE)), bench.unit)


@ARMS.register("ppo_acting")
def ppo_acting(bench: Bench) -> Arm:
    """A run with an agent's policy on the device, which does not learn."""
    run = bench.started_run()
    env = TemperatureAction(KDVectorEnv(run=run))
    policy = export_policy(make_agent(_learner(bench.config), env, seed=0), run.state.names, env.action_map)
    return Arm.of(partial(run.advance, policy.to(run.device)), bench.unit)


@ARMS.register("ppo_learning")
def ppo_learning(bench: Bench) -> Arm:
    """A run with an agent that learns in every update, from the reward that all instances share."""
    learner = _Learner(bench, "uniform")
    return Arm.of(learner.learn, learner.unit)


def _register_stacked(num_runs: int, lever: str = "", **engine: Any) -> None:
    """Register K students of one seed that are stacked; with a lever, under engine options that are given."""

    def create(bench: Bench) -> Arm:
        template = build_bench_run(bench.config, **engine) if engine else bench.template.sibling()
        try:
            runs = create_parallel_runs(template, num_runs, "stacked")
        except UsageError as error:
            raise LeftOut(str(error)) from None
        runs.reset([0] * num_runs)  # runs of one seed share their batches
        return Arm.of(partial(runs.advance, FixedTemperature(TEMPERATURE)), bench.unit, num_runs)

    ARMS.register(f"stacked_{num_runs}{lever}")(create)


for _num_runs in (1, 8, 32):
    _register_stacked(_num_runs)


@ARMS.register("ppo_paper_schedule")
def ppo_paper_schedule(bench: Bench) -> Arm:
    """The mean over a cycle of the preset paper: an epoch in which the agent learns, and those in which it only acts.

    Its epochs of exploration are left away.
    """
    paper = read_preset("paper", DistillConfig.presets, DistillConfig.option_names())
    learner = _Learner(
        bench, paper["calibrator"], paper["temperature_scale"], acts_by_samples=paper["acting"] == "sample"
    )
    share = 1.0 / paper["learn_interval"]
    return Arm([(share, learner.learn), (1.0 - share, learner.act)], learner.unit)


def _register_calibrated(calibrator: str) -> None:
    def create(bench: Bench) -> Arm:
        learner = _Learner(bench, calibrator)
        return Arm.of(learner.learn, learner.unit)

    ARMS.register(f"ppo_learning_{calibrator}")(create)


for _calibrator in ("return_decomposition", "last_layer", "gradient"):
    _register_calibrated(_calibrator)

DEFAULT_ARMS = tuple(name for name in ARMS if name != "plain_kd")  # all but those that vary the engine

METHOD_ARMS = tuple(f"method_{name}" for name in METHODS)
"""A run with each method and one temperature, which ``methods`` stands for."""


def _register_method(name: str) -> None:
    def create(bench: Bench) -> Arm:
        try:
            run = build_bench_run(bench.config, method=name, method_options={})
        except UsageError as error:  # it is for another task, or does not fit the networks
            raise LeftOut(str(error)) from None
        run.reset(0)
        return Arm.of(partial(run.advance, FixedTemperature(TEMPERATURE)), bench.unit)

    ARMS.register(f"method_{name}")(create)


for _method in METHODS:
    _register_method(_method)


def arms_called(names: Iterable[str]) -> list[str]:
    """Return the names of the arms that are asked for, each once."""
    return list(dict.fromkeys(arm for name in names for arm in (METHOD_ARMS if name == "methods" else (name,))))


def _register_lever(name: str, folds: bool = True, **engine: Any) -> None:
    """Register plain KD with given engine options, to measure what each of them brings."""

    def create(bench: Bench) -> Arm:
        run = build_bench_run(bench.config, teacher_cache_mib=0, **engine)
        return Arm.of(plain_kd(run, run.task.engine, teacher=None if folds else run.task.engine.prepare(run.teacher)))

    ARMS.register(f"plain_kd_{name}")(create)


_register_lever("pytorch_defaults", folds=False, precision="float32", memory_format="contiguous")
_register_lever("channels_last", folds=False, precision="float32", memory_format="channels_last")
_register_lever("bfloat16", folds=False, precision="bfloat16", memory_format="contiguous")
_register_lever("both", folds=False, precision="bfloat16", memory_format="channels_last")
_register_lever("both_folded", precision="bfloat16", memory_format="channels_last")
# Whether grouped convolutions are as quick in the order and format that single ones like.
_register_stacked(8, "_contiguous", memory_format="contiguous")
_register_stacked(8, "_float32", precision="float32")


def _learner(config: BenchConfig) -> str:
    return "ppo" if config.agent.agent in (None, PRETRAINED) else config.agent.agent


class _Learner:
    """An agent that sets a run's temperatures and learns, or acts as it is without a round trip to the host."""

    def __init__(
        self, bench: Bench, calibrator: str, scale: ActionScale = "log", acts_by_samples: bool = False
    ) -> None:
        self._run = bench.started_run()
        self._slots = KDVectorEnv(run=self._run)
        env = TemperatureAction(self._slots, scale)
        self._calibrated = None if calibrator == "uniform" else CalibratedReward(env, calibrator)
        self._action_map, self._acts_by_samples = env.action_map, acts_by_samples
        options: dict[str, Any] = {"seed": 0, "calibrator": calibrator, **bench.config.agent.agent_options}
        self._agent: BaseAlgorithm = make_agent(_learner(bench.config), self._calibrated or env, **options)
        self.unit = int(getattr(self._agent, "n_steps", _UNIT))
        self._updates = 0
        self._has_acted = False

    def learn(self, steps: int) -> None:
        """Make updates from which the agent learns."""
        if self._has_acted:
            observation = self._slots.observe()
            continue_from(self._agent, observation)
            if self._calibrated is not None:
                self._calibrated.start_from(observation)
                self._calibrated.watch()
            self._has_acted = False
        with HostThreads(self._run.device) as threads, noticing_divergence(self._agent):
            self._agent.learn(steps * self._run.batch_size, callback=threads, reset_num_timesteps=False)
        self._count(steps)

    def act(self, steps: int) -> None:
        """Make updates with the agent's policy as it is."""
        if self._calibrated is not None:
            self._calibrated.pause()
        export = partial(export_sampling_policy, seed=0) if self._acts_by_samples else export_policy
        policy = export(self._agent, self._run.state.names, self._action_map)
        self._run.advance(policy.to(self._run.device), steps)
        self._has_acted = True
        self._count(steps)

    def _count(self, steps: int) -> None:
        self._updates += steps
        if self._run.step_count < self._updates:
            raise UsageError("the run diverged, and its restarts would be timed too: choose a smaller learning rate")
