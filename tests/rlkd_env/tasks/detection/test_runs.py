"""Distilling a detector: the same run, snapshots and environments as for classification, an instance a proposal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import nn

from rlkd_env.data import DataConfig, create_source
from rlkd_env.envs.checker import check_vector_env
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.models import create_model
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.settings import Exploration
from rlkd_env.wrappers import CalibratedReward, TemperatureAction
from rlkd_env.wrappers.exploration import explore

SMALL: dict[str, Any] = {
    "dataset": "digits_detection",
    "image_size": 32,
    "train_images": 8,
    "teacher_images": 20,
    "validation_images": 4,
    "student": "fasterrcnn/cnn4",
    "method_options": {"task_weight": 1.0, "kd_weight": 1.0},
    "batch_size": 4,
    "proposals": 6,
    "epochs": 2,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "weight_decay": 1e-4,
    "reward": "train_progress",
    "device": "cpu",
}
MakeRun = Callable[..., DistillationRun]


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    torch.manual_seed(1)
    return create_model("fasterrcnn/cnn4", 10, (1, 32, 32)).eval()


@pytest.fixture
def make_detection_run(teacher: nn.Module) -> MakeRun:
    return lambda **settings: build_run(RunConfig.from_keywords(**{**SMALL, **settings}), teacher=teacher)


def temperatures(run: DistillationRun, seed: int) -> Temperature:
    return Temperature.shared(1.0 + 5.0 * torch.rand(run.batch_size, generator=torch.Generator().manual_seed(seed)))


def test_an_instance_is_a_proposal(make_detection_run: MakeRun) -> None:
    run = make_detection_run(features=("teacher_performance", "objectness", "overlap"))
    state = run.reset(0)
    assert run.batch_size == 24
    assert run.total_steps == 4
    assert state.shape == (24, 3)
    assert run.outputs.student_logits.shape == (24, 11)
    assert torch.equal(state[:, 1], run.outputs.regions.objectness)
    result = run.step(temperatures(run, 0))
    assert set(result.metrics) == {"loss", "loss_task", "loss_kd"}
    assert result.state.shape == (24, 3)
    evaluation = run.evaluate_validation()
    assert 0 <= evaluation.accuracy <= 1
    assert {"AP", "AP50", "AP75"} <= set(evaluation.details)


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_the_teacher_stays_as_it_is(memory_format: str, make_detection_run: MakeRun, teacher: nn.Module) -> None:
    run = make_detection_run(memory_format=memory_format)
    run.reset(0)
    for step in range(2):
        run.step(temperatures(run, step))
    run.evaluate_validation()
    assert not any(module.training for module in run.frozen_teacher.modules())
    for name, value in run.frozen_teacher.state_dict().items():
        assert torch.equal(value, teacher.state_dict()[name]), name


def test_a_proposals_temperature_changes_its_part_of_the_loss_alone(make_detection_run: MakeRun) -> None:
    run = make_detection_run()
    run.reset(0)
    one = temperatures(run, 0)
    other = Temperature.shared(torch.where(torch.arange(run.batch_size) == 5, 0.5, one.student))
    changed = run.method(run.outputs, one)["kd"] != run.method(run.outputs, other)["kd"]
    assert changed.nonzero().flatten().tolist() == [5]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kd", "dkd", "fpn", "fgd", "icd"])
def test_a_snapshot_goes_on_bit_for_bit(method: str, make_detection_run: MakeRun) -> None:
    run = make_detection_run(method=method, method_options={}, augmentation="flip", reward="probe_loss")
    run.reset(3)
    run.step(temperatures(run, 0))
    snapshot = run.state_dict()
    other = make_detection_run(method=method, method_options={}, augmentation="flip", reward="probe_loss")
    assert torch.equal(other.load_state_dict(snapshot), run.observe())
    for step in range(1, 4):
        left, right = run.step(temperatures(run, step)), other.step(temperatures(other, step))
        assert torch.equal(left.reward, right.reward)
        assert torch.equal(left.state, right.state)
    for ours, theirs in zip(run.student.state_dict().values(), other.student.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(run.method.parameters(), other.method.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("reward", ["probe_loss", "probe_turns", "probe_accuracy", "train_progress"])
def test_rewards_add_up_to_the_gain_on_the_probe(reward: str, make_detection_run: MakeRun) -> None:
    run = make_detection_run(reward=reward)
    run.reset(0)
    first = run.task.evaluate_probe(run.student, run.probe)
    begun = run.outputs
    total = sum(run.step(temperatures(run, step)).reward for step in range(4))
    last = run.task.evaluate_probe(run.student, run.probe)
    gains = {
        "probe_loss": first.loss - last.loss,
        "probe_turns": first.loss - last.loss,  # the few probe images are one part
        "probe_accuracy": last.accuracy - first.accuracy,
        "train_progress": (begun.student_cross_entropy - begun.teacher_cross_entropy).mean()
        - (run.outputs.student_cross_entropy - run.outputs.teacher_cross_entropy).mean(),
    }
    torch.testing.assert_close(total, gains[reward], rtol=1e-4, atol=1e-5)


def test_a_probe_is_measured_alike_every_time(make_detection_run: MakeRun) -> None:
    run = make_detection_run()
    run.reset(0)
    first, again = (run.task.evaluate_probe(run.student, run.probe) for _ in range(2))
    assert torch.equal(first.loss, again.loss)
    assert run.student.training


@pytest.mark.parametrize("share", [0.8, 1.0])
def test_exploration_shows_the_objects_of_both_images_of_a_mix(share: float, make_detection_run: MakeRun) -> None:
    run = make_detection_run(epochs=4)
    explore(run, Exploration(first_share=share, last_share=share, first_epoch=2, last_epoch=3, interval=1))
    run.reset(0)
    for step in range(2):
        run.step(temperatures(run, step))
    assert run.batch.boxes is not None
    alone = run.splits.train.take_boxes(run.batch.indices)
    assert alone is not None
    shown, own = ((boxes.classes > 0).sum(dim=1) for boxes in (run.batch.boxes, alone))
    assert ((shown > own) == (share < 1.0)).all()
    assert (run.outputs.is_mixed == (share < 1.0)).all()
    torch.testing.assert_close(
        run.outputs.task_loss.mean(),
        run.outputs.student_cross_entropy.mean() + run.outputs.further_loss.mean(),
    )


@pytest.mark.slow
def test_the_environments_hold_their_contracts(make_detection_run: MakeRun) -> None:
    run = make_detection_run(epochs=1)
    check_vector_env(KDVectorEnv(run=run))
    env = gym.make("rlkd/DigitsDetection-v0", **{**SMALL, "dataset": "digits_detection"}, teacher=run.teacher)
    check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space.shape == (24, 4)
    assert env.action_space.shape == (24,)


def test_slots_are_proposals(teacher: nn.Module) -> None:
    settings = {name: value for name, value in SMALL.items() if name not in ("dataset", "batch_size")}
    envs = gym.make_vec("rlkd/DigitsDetection-v0", num_envs=24, teacher=teacher, **settings)
    assert envs.unwrapped.run.recipe.batch_size == 4
    settings |= {"batch_size": 2}
    assert gym.make_vec("rlkd/DigitsDetection-v0", num_envs=12, teacher=teacher, **settings).num_envs == 12
    with pytest.raises(UsageError, match="a slot is a region proposal: num_envs=25"):
        gym.make_vec("rlkd/DigitsDetection-v0", num_envs=25, teacher=teacher, **settings)


def test_calibrated_rewards_of_proposals_keep_the_batch_reward(make_detection_run: MakeRun) -> None:
    run = make_detection_run(epochs=1)
    envs = CalibratedReward(TemperatureAction(KDVectorEnv(run=run)), "return_decomposition")
    envs.reset(seed=0)
    totals: list[float] = []
    run.add_hook(_Rewards(totals))
    for _ in range(2):
        rewards = envs.step(envs.action_space.sample())[1]
        np.testing.assert_allclose(rewards.mean(), totals[-1], rtol=1e-4, atol=1e-6)


class _Rewards:
    """Notes a run's batch rewards."""

    def __init__(self, totals: list[float]) -> None:
        self._totals = totals

    def before_update(self, *_: object) -> None:
        pass

    def on_step(self, run: DistillationRun, result: Any) -> None:
        self._totals.append(float(result.reward))

    def on_epoch_end(self, run: DistillationRun) -> None:
        pass


@pytest.mark.parametrize("calibrator", ["last_layer", "gradient", "counterfactual"])
def test_calibrators_that_look_at_images_say_so(calibrator: str, make_detection_run: MakeRun) -> None:
    with pytest.raises(UsageError, match="region proposals there are uniform and return_decomposition"):
        CalibratedReward(TemperatureAction(KDVectorEnv(run=make_detection_run())), calibrator)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "vid"}, "method 'vid' is not for detection. Valid: .*box, fpn, fgd, ld, icd"),
        ({"sequence_phases": 3}, "which detection lacks"),
        ({"proposals": 0}, "at least 1 proposal"),
        ({"student": "cnn4"}, "is no detector"),
        ({"augmentation": "crop_flip"}, "can be none or flip"),
    ],
)
def test_what_does_not_go_with_detection_is_refused(
    settings: dict[str, Any], message: str, make_detection_run: MakeRun
) -> None:
    with pytest.raises(UsageError, match=message):
        make_detection_run(**settings)


def test_detectors_and_their_parts_are_refused_in_classification() -> None:
    with pytest.raises(UsageError, match="method 'icd' is not for classification"):
        build_run(RunConfig.from_keywords(method="icd", device="cpu"))
    with pytest.raises(UsageError, match="objectness"):
        build_run(RunConfig.from_keywords(features=("objectness",), device="cpu"))
    with pytest.raises(UsageError, match="is a detector"):
        build_run(RunConfig.from_keywords(student="fasterrcnn/cnn4", device="cpu"))


@pytest.mark.slow
def test_several_runs_equal_single_ones(make_detection_run: MakeRun, teacher: nn.Module) -> None:
    settings = {name: value for name, value in SMALL.items() if name != "dataset"}
    actions = {"action": "temperature"}
    envs = gym.make_vec("rlkd/DigitsDetection-v0", num_envs=48, num_runs=2, teacher=teacher, **actions, **settings)
    observation, _ = envs.reset(seed=5)
    single = make_detection_run()
    np.testing.assert_array_equal(observation[24:], single.reset(6).numpy())
    highest = single.temperature_range.maximum
    temperatures = np.full(envs.action_space.shape, highest, dtype=np.float32)
    state = single.step(Temperature.shared(torch.full((24,), highest))).state
    np.testing.assert_array_equal(envs.step(temperatures)[0][24:], state.numpy())


def test_the_test_scenes_are_not_in_reach() -> None:
    source = create_source(DataConfig(dataset="digits_detection", teacher_images=20, train_images=8, image_size=32))
    splits = source.splits()
    assert splits.image_shape == (1, 32, 32)
    assert source.test_set().fingerprint() not in {part.fingerprint() for part in (splits.train, splits.validation)}
