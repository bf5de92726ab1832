"""No NaN reaches an observation, a reward or a saved file, whatever logits, actions and settings a run meets."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file
from torch import nn

from agents.learned.temperature_policy import TemperaturePolicy
from agents.recording.selection import StudentSelection
from agents.recording.timing import PartTimer
from agents.rules.create import create_rule
from agents.sb3.export import export_policy
from agents.sb3.make import make_agent
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.data import DATASETS
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.instances.features import FEATURES
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.models import create_model
from rlkd_env.models.storage import load_network, save_network
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.reward import REWARDS
from rlkd_env.runs.run import DistillationRun
from rlkd_env.wrappers import CalibratedReward, ResidualAction, TemperatureAction

SLOTS = 64
STEPS = 10  # an episode of 8, the reset after it, and the beginning of the next
LEARNED_STEPS = 36  # after which return_decomposition has been fitted
LARGEST = 1e4
ACTIONS = (-np.inf, -LARGEST, -1.0, -0.5, 0.0, 1.0, LARGEST, np.inf, np.nan)
AGENTS: dict[str, dict[str, Any]] = {"ppo": {"n_steps": 4, "batch_size": 256}, "sac": {"learning_starts": SLOTS}}
IMAGE_FEATURES = tuple(name for name, feature in FEATURES.items() if not feature.needs_regions)
RANGES = ((0.05, 0.5), (0.5, 100.0), ("0.125s", "4s"), ("0.01s", "0.01s"))


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the settings of an environment."""
    minimum, maximum = draw(st.sampled_from(RANGES))
    return {
        "temperature_min": minimum,
        "temperature_max": maximum,
        "learning_rate": draw(st.sampled_from((1e-9, 0.05, 1.0, 1e6))),
        "method_options": {"temperature_squared": draw(st.booleans())},
        "reward": draw(st.sampled_from(sorted(REWARDS))),
        "reward_interval": draw(st.sampled_from((1, 3))),
        "temperatures": draw(st.sampled_from(("shared", "separate"))),
        "equal_gradients": draw(st.booleans()),
    }


def scaled(network: nn.Sequential, largest_logit: float) -> nn.Sequential:
    """Return a copy whose logits reach this size on the training images."""
    network = deepcopy(network)
    last = network[-1]
    with torch.no_grad():
        factor = largest_logit / network(DATASETS["digits"]().splits().train.images).abs().max()
        last.weight *= factor
        last.bias *= factor
    return network


class Recorder(RunHook):
    """Keeps what the run itself knows of its latest update."""

    def on_step(self, run: DistillationRun, result: StepResult) -> None:
        logits = run.outputs.student_logits
        self.broken = not bool(result.metrics["loss"].isfinite() & logits.isfinite().all())
        self.done = result.done


def check_finite(file: Path) -> None:
    for name, value in load_file(file).items():
        assert value.isfinite().all(), (file.name, name)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    options=runs(),
    calibrator=st.sampled_from((None, *CALIBRATORS)),
    teacher_size=st.sampled_from((1e-2, 10.0, LARGEST)),
    student_size=st.sampled_from((1e-2, 10.0, LARGEST)),
    around=st.sampled_from((None, "lskd", "dtkd", "wttm", "linear")),
    actions=arrays(np.float32, (STEPS, SLOTS, 2), elements=st.sampled_from(ACTIONS)),
    agent_name=st.sampled_from(sorted(AGENTS)),
    states=arrays(np.float32, (32, len(IMAGE_FEATURES)), elements=st.floats(-LARGEST, LARGEST, width=32)),
)
def test_no_nan_reaches_observation_reward_or_file(
    digits_teacher: nn.Sequential,
    options: dict[str, Any],
    calibrator: str | None,
    teacher_size: float,
    student_size: float,
    around: str | None,
    actions: np.ndarray,
    agent_name: str,
    states: np.ndarray,
) -> None:
    base = KDVectorEnv(
        SLOTS,
        epochs=2,
        device="cpu",
        features=IMAGE_FEATURES,
        teacher=scaled(digits_teacher, teacher_size),
        student=lambda: scaled(create_model("mlp12", 10, (1, 8, 8)), student_size),
        **options,
    )
    envs = TemperatureAction(base) if around is None else ResidualAction(base, create_rule(around))
    slots = envs if calibrator is None else CalibratedReward(envs, calibrator)
    run = envs.unwrapped.run
    recorder, selection = Recorder(), StudentSelection(PartTimer())
    run.add_hook(recorder)
    run.add_hook(selection)

    observation, _ = slots.reset(seed=0)
    starts_over = False
    for action in actions[:, :, : envs.single_action_space.shape[0]]:
        assert np.isfinite(observation).all()
        assert observation in slots.observation_space
        if np.isnan(action).any() and not starts_over:
            with pytest.raises(ValueError, match="not a number"):
                slots.step(action)
            np.testing.assert_array_equal(envs.unwrapped.observe(), observation)
        observation, rewards, terminated, truncated, info = slots.step(np.nan_to_num(action, nan=0.5, posinf=np.inf))
        assert np.isfinite(rewards).all()
        assert not truncated.any()
        if starts_over:
            starts_over = False
            assert not terminated.any()
            continue
        assert terminated.all() == terminated.any() == recorder.done
        assert not recorder.broken or info["diverged"].all()
        starts_over = bool(terminated.all())

    agent = make_agent(agent_name, slots, seed=0, **AGENTS[agent_name])
    agent.learn(LEARNED_STEPS * SLOTS)
    policy = export_policy(agent, run.state.names, envs.action_map)
    with TemporaryDirectory() as folder:
        path = Path(folder)
        for name, weights in (("best", selection.best_student), ("last", selection.last_student)):
            if weights is not None:
                save_network(path / f"{name}.safetensors", weights, "mlp12", 10, (1, 8, 8))
                check_finite(path / f"{name}.safetensors")
                assert load_network(path / f"{name}.safetensors", 10, (1, 8, 8))(run.probe.images).isfinite().all()
        policy.save(path)
        check_finite(path / "policy.safetensors")
        loaded = TemperaturePolicy.load(path)
    if around is not None:
        made_up = InstanceOutputs(*torch.from_numpy(states[:, :10]).repeat(2, 1, 1), torch.arange(32) % 10)
        for value in vars(loaded(made_up)).values():
            assert value is None or (value.isfinite() & (value > 0)).all()
        return
    chosen = loaded.temperatures_from_state(torch.from_numpy(states))
    bounds = run.temperature_range
    assert (chosen >= bounds.minimum * (1 - 1e-5)).all()
    assert (chosen <= bounds.maximum * (1 + 1e-5)).all()
