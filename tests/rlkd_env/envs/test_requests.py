"""Keywords, seeds, options and modes that clients ask for."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data.sources import Digits
from rlkd_env.envs.checker import check_vector_env
from rlkd_env.envs.kd_env import KDEnv
from rlkd_env.envs.requests import run_seeds
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.wrappers import CalibratedReward, TemperatureAction

SHORT = {"epochs": 2, "device": "cpu"}


def make_vec(num_envs: int = 16, **settings: object) -> KDVectorEnv:
    return gym.make_vec("rlkd/Digits-v0", num_envs=num_envs, **{**SHORT, **settings})


@pytest.mark.parametrize("make", [gym.make, gym.make_vec, lambda _, **settings: KDVectorEnv(64, **settings)])
def test_an_unknown_keyword_is_a_type_error_too_in_pythons_words(make: object) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'frameskip'"):
        make("rlkd/Digits-v0", frameskip=1)
    with pytest.raises(UsageError, match="Did you mean 'observation'"):
        make("rlkd/Digits-v0", observations="flat")


def test_messages_name_keywords_and_leave_commands_as_they_are() -> None:
    with pytest.raises(UsageError, match="pass download, or the folder that holds it as data_path"):
        gym.make("rlkd/CIFAR10-v0", data_path="/nowhere")
    with pytest.raises(UsageError, match=r"`rlkd teacher --dataset digits --model \w+`, or pass .* as teacher$"):
        KDEnv(dataset=UntaughtDigits(), **SHORT)


class UntaughtDigits(Digits):
    trains_its_teacher = False


def test_normalised_actions_are_the_default_of_the_ids_and_a_log_scale() -> None:
    bounds = {"temperature_min": 1, "temperature_max": 16}
    envs, raw = make_vec(**bounds), make_vec(action="temperature", **bounds)
    assert envs.single_action_space == gym.spaces.Box(-1.0, 1.0, (1,), dtype=np.float32)
    assert raw.single_action_space == gym.spaces.Box(1.0, 16.0, (1,), dtype=np.float32)
    assert raw.action_map is None
    wrapped = TemperatureAction(make_vec(action="temperature", **bounds))
    single = gym.make("rlkd/Digits-v0", batch_size=16, **SHORT, **bounds)
    single_raw = TemperatureAction(gym.make("rlkd/Digits-v0", batch_size=16, action="temperature", **SHORT, **bounds))
    assert single.action_space == single_raw.action_space == gym.spaces.Box(-1.0, 1.0, (16,), dtype=np.float32)
    actions = np.linspace(-1.5, 1.5, 16, dtype=np.float32)[:, None]
    temperatures = 4.0 ** (1 + actions.clip(-1, 1))
    found = []
    for env, action in ((envs, actions), (raw, temperatures), (wrapped, actions)):
        env.reset(seed=2)
        found.append(env.step(action)[0])
    for env in (single, single_raw):
        env.reset(seed=2)
        found.append(env.step(actions[:, 0])[0])
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    for other in found[2:]:
        np.testing.assert_array_equal(other, found[0])
    with pytest.raises(UsageError, match="leave TemperatureAction away"):
        TemperatureAction(single)
    with pytest.raises(UsageError, match="Did you mean 'normalized'"):
        make_vec(action="normalised")


def test_seeds_may_be_numpys_and_a_list_has_one_for_each_slot_or_run() -> None:
    assert run_seeds(np.int64(4), 6, 3) == [4, 5, 6]
    assert run_seeds(None, 6, 3) == [None, None, None]
    assert run_seeds([7, 8, 9, 10, 11, 12], 6, 3) == [7, 9, 11]
    assert run_seeds(np.array([7, 8, 9]), 6, 3) == [7, 8, 9]
    with pytest.raises(UsageError, match="6 slots or 3 runs, got 2"):
        run_seeds([1, 2], 6, 3)
    with pytest.raises(TypeError):
        run_seeds(1.5, 6, 3)
    env, envs = KDEnv(batch_size=16, **SHORT), make_vec()
    expected = envs.reset(seed=5)[0]
    for found in (env.reset(seed=np.int64(5)), envs.reset(seed=[5] * 16), envs.reset(seed=np.int64(5))):
        np.testing.assert_array_equal(found[0], expected)
    assert not np.array_equal(envs.reset(seed=[None] * 16)[0], envs.reset(seed=[None] * 16)[0])


def test_unknown_options_and_masks_of_some_slots_are_refused() -> None:
    env, envs = KDEnv(batch_size=16, **SHORT), make_vec()
    for either in (env, envs):
        with pytest.raises(UsageError, match="unknown option of reset 'mask'"):
            either.reset(options={"mask": 1})
        either.reset(options={})
    envs.reset(options={"reset_mask": np.ones(16, dtype=bool)})
    with pytest.raises(UsageError, match="must name all of them"):
        envs.reset(options={"reset_mask": np.arange(16) < 8})


@pytest.mark.parametrize("mode", ["next_step", AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("num_runs", [1, 2])
def test_the_autoreset_mode_is_chosen(mode: str | AutoresetMode, num_runs: int) -> None:
    settings = {"num_envs": 16 * num_runs, "num_runs": num_runs, "run_mode": "serial"}
    envs = make_vec(autoreset_mode=mode, **settings)
    assert envs.metadata["autoreset_mode"] is envs.autoreset_mode
    check_vector_env(envs)
    plain, same = make_vec(**settings), make_vec(autoreset_mode="same_step", **settings)
    action = np.zeros(envs.action_space.shape, dtype=np.float32)
    last, _ = plain.reset(seed=1), same.reset(seed=1)
    for _ in range(plain.template.total_steps):
        last, shown = plain.step(action), same.step(action)
        np.testing.assert_array_equal(shown[1], last[1])
    assert shown[2].all()
    assert last[2].all()
    np.testing.assert_array_equal(shown[4]["final_obs"], last[0])
    assert shown[4]["final_info"].keys() == last[4].keys()
    assert shown[4]["_final_info"].all()
    np.testing.assert_array_equal(shown[0], plain.step(action)[0])  # the next run's first batch
    with pytest.raises(UsageError, match="Valid: next_step, same_step"):
        make_vec(autoreset_mode="disabled")


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_an_episode_is_truncated_after_as_many_steps_as_are_allowed(mode: str) -> None:
    envs = CalibratedReward(
        make_vec(max_episode_steps=3, autoreset_mode=mode, reward_interval=2), "return_decomposition"
    )
    check_vector_env(envs)
    envs.reset(seed=0)
    flags = [tuple(part.all() for part in envs.step(np.zeros((16, 1), np.float32))[2:4]) for _ in range(8)]
    over = (2, 6) if mode == "next_step" else (2, 5)
    assert flags == [(False, step in over) for step in range(8)]
    with pytest.raises(UsageError, match="at least 1 step"):
        make_vec(max_episode_steps=0)


def test_infos_tell_of_every_step_and_of_the_student_at_the_end() -> None:
    envs, env = make_vec(reward="probe_loss"), KDEnv(batch_size=16, action="normalized", reward="probe_loss", **SHORT)
    envs.reset(seed=0)
    env.reset(seed=0)
    action = np.linspace(-1, 1, 16, dtype=np.float32)
    every = {"loss", "loss_kd", "loss_task", "probe_loss", "probe_accuracy", "temperature"}
    for step in range(env.run.total_steps):
        *_, info = envs.step(action[:, None])
        *_, single = env.step(action)
        is_last = step == env.run.total_steps - 1
        final = {"validation_accuracy", "validation_loss", "diverged"} if is_last else set()
        assert single.keys() == every | final
        assert info.keys() == {*single, *(f"_{name}" for name in single)}
        for name, value in single.items():
            np.testing.assert_array_equal(info[name], np.full(16, value, dtype=info[name].dtype))
            assert info[f"_{name}"].all()
    range_ = env.run.temperature_range
    assert single["temperature"] == pytest.approx(
        np.mean(range_.minimum * (range_.maximum / range_.minimum) ** ((action + 1) / 2)), rel=1e-5
    )
    assert single["validation_accuracy"] == pytest.approx(float(env.run.evaluate_validation().accuracy))
    assert single["probe_loss"] == pytest.approx(float(env.run.task.evaluate(env.run.student, env.run.probe).loss))


def test_figures_that_are_not_finite_are_masked() -> None:
    envs = make_vec(num_envs=64, learning_rate=1e6, epochs=50)
    envs.reset(seed=0)
    terminated = np.zeros(1)
    while not terminated.any():
        _, _, terminated, _, info = envs.step(np.zeros((64, 1), np.float32))
        assert all(np.isfinite(value).all() for value in info.values())
    assert not info["_probe_loss"].any()
    assert "validation_loss" not in info
