"""The arms of ``rlkd bench``: plain KD in a hand-written loop, and runs with rules, agents and calibrators."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from agents.learned.loading import PRETRAINED
from agents.rules.simple import FixedTemperature
from agents.sb3.export import export_policy
from agents.sb3.make import make_agent
from agents.sb3.threads import HostThreads
from experiments.commands.bench.plain_kd import TEMPERATURE, plain_kd
from experiments.config import BenchConfig
from rlkd_env.data import BatchStream, DataConfig, DataSource, ImageSet, MemoryImages, Preprocessing, Splits
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.models import create_model
from rlkd_env.runs.build import build_run
from rlkd_env.runs.reward import Measurement
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.registry import Registry
from rlkd_env.wrappers import CalibratedReward, TemperatureAction

Arm = Callable[[int], object]  # makes the given number of updates
_EPOCHS = 100_000  # so many that no run of a benchmark ends
_CLASSES, _SHAPE, _IMAGES = 100, (3, 32, 32), 4096
_LOGIT_STD = 4.0


class RandomImages(DataSource):
    """Noise with CIFAR-100's image size and classes, cropped and flipped like real images."""

    default_teacher = "resnet56"
    default_student = "resnet20"

    def __init__(self, config: DataConfig | None = None) -> None:
        super().__init__(config)
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (_IMAGES, *_SHAPE), generator=generator, dtype=torch.uint8)
        labels = torch.randint(_CLASSES, (_IMAGES,), generator=generator)
        self._images = MemoryImages(pixels, labels, Preprocessing((0.5,) * 3, (0.25,) * 3, crop_padding=4, flip=True))

    def splits(self) -> Splits:
        """Return the same images for all parts."""
        few = self._images.subset(torch.arange(512))
        return Splits(self._images, few, few, self._images, _CLASSES)

    def test_set(self) -> ImageSet | None:
        """Return None, as there is no test set."""
        return None


def build_bench_run(config: BenchConfig, **changes: Any) -> DistillationRun:
    """Build the run that the config describes, but one that does not end."""
    settings = config.run.replaced(changes, epochs=_EPOCHS, schedule="constant")
    if not config.bench.random_images:
        return build_run(settings)
    chosen = settings.networks.teacher_model
    name = RandomImages.default_teacher if chosen == "auto" else chosen
    source = RandomImages(settings.data)
    return build_run(settings, dataset=source, teacher=_untrained_teacher(name, source))


def _untrained_teacher(name: str, source: RandomImages) -> torch.nn.Module:
    """Create a teacher whose logits are as large as those of a trained one, so that students do not diverge."""
    torch.manual_seed(0)
    teacher = create_model(name, _CLASSES, _SHAPE).eval()
    with torch.no_grad():
        std = teacher(source.splits().probe.take(torch.arange(64))).std(dim=-1).mean()
        classifier = [module for module in teacher.modules() if isinstance(module, torch.nn.Linear)][-1]
        for parameter in classifier.parameters():
            parameter.mul_(_LOGIT_STD / std)
    return teacher


ARMS: Registry[Callable[[BenchConfig], Arm]] = Registry("arm")


@ARMS.register("plain_kd")
def _plain_kd(config: BenchConfig) -> Arm:
    """Knowledge distillation at one temperature and nothing else, with the same engine."""
    run = build_bench_run(config)
    return plain_kd(run, run.task.engine)


def _register_lever(name: str, folds: bool = True, **engine: Any) -> None:
    """Register plain KD with given engine options, to measure what each of them brings."""

    def create(config: BenchConfig) -> Arm:
        run = build_bench_run(config, teacher_cache_mib=0, **engine)
        return plain_kd(run, run.task.engine, teacher=None if folds else run.task.engine.prepare(run.teacher))

    ARMS.register(f"plain_kd_{name}")(create)


_register_lever("pytorch_defaults", folds=False, precision="float32", memory_format="contiguous")
_register_lever("channels_last", folds=False, precision="float32", memory_format="channels_last")
_register_lever("bfloat16", folds=False, precision="bfloat16", memory_format="contiguous")
_register_lever("both", folds=False, precision="bfloat16", memory_format="channels_last")
_register_lever("both_folded", precision="bfloat16", memory_format="channels_last")
_register_lever("both_folded_compiled", precision="bfloat16", memory_format="channels_last", compile=True)


@ARMS.register("fixed")
def fixed(config: BenchConfig) -> Arm:
    """A run with the rule that gives every instance the same temperature."""
    return partial(_started(config).advance, FixedTemperature(TEMPERATURE))


@ARMS.register("ppo_acting")
def ppo_acting(config: BenchConfig) -> Arm:
    """A run with an agent's policy on the device, which does not learn."""
    run = _started(config)
    env = TemperatureAction(KDVectorEnv(run=run))
    policy = export_policy(make_agent(_learner(config), env, seed=0), run.state.names, env.action_map)
    return partial(run.advance, policy.to(run.device))


def _learner(config: BenchConfig) -> str:
    return "ppo" if config.agent.agent in (None, PRETRAINED) else config.agent.agent


def _learning(config: BenchConfig, calibrator: str) -> Arm:
    run = _started(config)
    env = TemperatureAction(KDVectorEnv(run=run))
    wrapped = env if calibrator == "uniform" else CalibratedReward(env, calibrator)
    options: dict[str, Any] = {"seed": 0, **config.agent.agent_options}
    agent = make_agent(_learner(config), wrapped, **options)
    made = 0

    def learn(steps: int) -> None:
        nonlocal made
        with HostThreads(run.device) as threads:
            agent.learn(steps * run.batch_size, callback=threads, reset_num_timesteps=False)
        made += steps
        if run.step_count < made:
            raise UsageError("the run diverged, and its restarts would be timed too: choose a smaller learning rate")

    return learn


ARMS.register("ppo_learning")(partial(_learning, calibrator="uniform"))
for _calibrator in ("return_decomposition", "last_layer", "gradient"):
    ARMS.register(f"ppo_learning_{_calibrator}")(partial(_learning, calibrator=_calibrator))

DEFAULT_ARMS = tuple(name for name in ARMS if not name.startswith("plain_kd_"))  # all but those that vary the engine


def _started(config: BenchConfig) -> DistillationRun:
    run = build_bench_run(config)
    run.reset(0)
    return run


def cost_by_part(run: DistillationRun, steps: int) -> dict[str, float]:
    """Return the median milliseconds over ``steps`` of each part of a step on its own."""
    run.reset(0)
    engine, batch = run.task.engine, run.batch
    images = engine.images(batch.images)
    temperature = Temperature.shared(torch.full((run.batch_size,), TEMPERATURE, device=run.device))
    frozen = run.frozen_teacher
    stream = BatchStream(run.splits.train, run.recipe.batch_size, seed=0)
    steps_of_stream = itertools.count()
    measurement = Measurement(run.outputs, partial(run.task.evaluate_probe, run.student), run.probe, run.probe_parts)
    losses: list[Tensor] = []

    def forward_teacher() -> None:
        with torch.no_grad():
            engine.forward(frozen, images)

    def make_loss() -> None:
        outputs = run.task.forward(run.student, frozen, batch, teacher_logits=run.outputs.teacher_logits)
        losses[:] = [torch.stack(list(run.method(outputs, temperature).values())).sum(dim=0).mean()]

    networks: dict[str, Callable[[], object]] = {"teacher": forward_teacher, "student_and_loss": make_loss}
    if not run.task.follows_logits:  # the teacher classifies the student's proposals
        networks = {"networks_and_loss": make_loss}
    parts: dict[str, Callable[[], object]] = {
        "batch": lambda: stream.batch(next(steps_of_stream)),
        **networks,
        "backward": lambda: losses[0].backward(),
        "optimizer": run.update.optimization.optimizer.step,
        "state": lambda: run.state(replace(run.outputs)),
        "reward": lambda: run.reward.after_update(measurement, is_last=False),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(max(steps, 3)):
        for name, part in parts.items():
            started = time.perf_counter()
            part()
            if run.device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}
