"""The adapter: what stable-baselines3 sees must be what its own ``DummyVecEnv`` shows of the same environments."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor
from toy_envs import Counter, CounterVectorEnv

from agents.sb3.vec_env import VectorEnvAdapter
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.wrappers import TemperatureAction

LENGTHS = (2, 3, 3)


def counters() -> list[Any]:
    return [lambda length=length: Counter(length, truncates=length == 2) for length in LENGTHS]


def gymnasium_env(kind: str) -> VectorEnv:
    modes = {"same-step": AutoresetMode.SAME_STEP, "disabled": AutoresetMode.DISABLED}
    vectorizer = AsyncVectorEnv if kind.startswith("async") else SyncVectorEnv
    return vectorizer(counters(), autoreset_mode=modes.get(kind.removeprefix("async "), AutoresetMode.NEXT_STEP))


@pytest.mark.parametrize("kind", ["next-step", "same-step", "disabled", "async next-step"])
def test_the_adapter_equals_stable_baselines3s_own_vec_env(kind: str) -> None:
    ours, theirs = VectorEnvAdapter(gymnasium_env(kind)), DummyVecEnv(counters())
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    generator = np.random.default_rng(0)
    for _ in range(12):
        actions = generator.uniform(-1, 1, (3, 1)).astype(np.float32)
        for one, other in zip(ours.step(actions)[:3], theirs.step(actions)[:3], strict=True):
            np.testing.assert_array_equal(one, other)
        our_infos, their_infos = ours.step(actions)[3], theirs.step(actions)[3]
        for one, other in zip(our_infos, their_infos, strict=True):
            assert one.get("TimeLimit.truncated", False) == other["TimeLimit.truncated"]
            assert one.get("count") == other.get("count")
            assert ("terminal_observation" in one) == ("terminal_observation" in other)
            if "terminal_observation" in one:
                np.testing.assert_array_equal(one["terminal_observation"], other["terminal_observation"])
    ours.close()


def test_episodes_that_end_together_take_one_step_more() -> None:
    env = CounterVectorEnv((3, 3))
    adapter = VectorEnvAdapter(env)
    adapter.reset()
    seen = []
    for _ in range(6):
        observation, _, done, infos = adapter.step(np.ones((2, 1), np.float32))
        seen.append((observation[0, 0], done[0], infos[0].get("terminal_observation")))
    assert [entry[:2] for entry in seen] == [(1, False), (2, False), (0, True), (1, False), (2, False), (0, True)]
    np.testing.assert_array_equal(seen[2][2], [3.0])


def test_where_no_mask_is_had_the_reset_is_an_episode_of_its_own_without_reward() -> None:
    adapter = VectorEnvAdapter(CounterVectorEnv((2, 3)))
    adapter.reset()
    rows = [adapter.step(np.ones((2, 1), np.float32)) for _ in range(4)]
    observations = [row[0][0, 0] for row in rows]
    assert observations == [1.0, 2.0, 0.0, 1.0]  # the last observation stands in until the reset comes
    assert [bool(row[2][0]) for row in rows] == [False, True, True, False]
    assert [float(row[1][0]) for row in rows] == [1.0, 1.0, 0.0, 1.0]
    np.testing.assert_array_equal(rows[1][3][0]["terminal_observation"], [2.0])
    assert "autoreset" not in rows[1][3][0]
    assert rows[2][3][0]["autoreset"]
    np.testing.assert_array_equal(rows[2][3][0]["terminal_observation"], [2.0])
    assert [bool(row[2][1]) for row in rows] == [False, False, True, True]  # the other slot is not disturbed


def test_terminal_observations_are_copies_that_the_next_steps_leave_alone() -> None:
    adapter = VectorEnvAdapter(SyncVectorEnv(counters(), copy=False))
    adapter.reset()
    adapter.step(np.ones((3, 1), np.float32))
    observation, _, _, infos = adapter.step(np.ones((3, 1), np.float32))
    terminal, kept = infos[0]["terminal_observation"], observation.copy()
    for _ in range(3):
        adapter.step(np.ones((3, 1), np.float32))
    np.testing.assert_array_equal(terminal, [2.0])
    np.testing.assert_array_equal(observation, kept)


def test_dict_observations_are_split_by_slot() -> None:
    class DictCounter(gym.ObservationWrapper):
        def __init__(self, env: gym.Env) -> None:
            super().__init__(env)
            self.observation_space = gym.spaces.Dict({"count": env.observation_space})

        def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
            return {"count": observation}

    adapter = VectorEnvAdapter(SyncVectorEnv([lambda: DictCounter(Counter(1))] * 2))
    adapter.reset()
    observation, _, done, infos = adapter.step(np.zeros((2, 1), np.float32))
    assert done.all()
    np.testing.assert_array_equal(observation["count"], np.zeros((2, 1)))
    np.testing.assert_array_equal(infos[1]["terminal_observation"]["count"], [1.0])


def test_seeds_and_options_reach_the_environment_once() -> None:
    class Recorder(CounterVectorEnv):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            self.received = (seed, options)
            return super().reset(seed=seed)

    env = Recorder((2, 2))
    adapter = VectorEnvAdapter(env)
    adapter.seed(7)
    adapter.set_options({"key": 1})
    adapter.reset()
    assert env.received == (7, {"key": 1})
    adapter.reset()
    assert env.received == (None, None)


def test_attributes_and_methods_are_found_in_slots_and_wrappers() -> None:
    adapter = VectorEnvAdapter(gymnasium_env("next-step"))
    adapter.reset()
    assert adapter.get_attr("length") == [2, 3, 3]
    assert adapter.get_attr("length", indices=[1]) == [3]
    adapter.set_attr("length", 9)
    assert adapter.env_method("get_wrapper_attr", "length") == [9, 9, 9]
    with pytest.raises(ValueError, match="all slots"):
        adapter.set_attr("length", 1, indices=[0])
    slots = VectorEnvAdapter(TemperatureAction(KDVectorEnv(8, epochs=1, device="cpu")))
    assert len({id(run) for run in slots.get_attr("run")}) == 1
    assert slots.get_attr("action_map")[0].scale == "log"
    assert slots.env_is_wrapped(TemperatureAction) == [True] * 8
    assert slots.env_is_wrapped(gym.Wrapper, indices=0) == [False]
    slots.set_attr("note", 3)
    assert slots.get_attr("note", indices=[0, 1]) == [3, 3]
    assert slots.env_method("reset", seed=0, indices=[2])[0][0].shape == (8, 4)
    assert not slots.has_attr("nonsense")


def test_rendered_pictures_are_passed_on() -> None:
    adapter = VectorEnvAdapter(KDVectorEnv(8, epochs=1, device="cpu", render_mode="rgb_array"))
    adapter.reset()
    assert adapter.render().shape == (360, 500, 3)


def test_monitoring_counts_a_kd_run_as_one_episode_of_every_slot() -> None:
    adapter = VecMonitor(VectorEnvAdapter(KDVectorEnv(64, epochs=1, device="cpu")))
    adapter.reset()
    for _ in range(4):
        _, _, done, infos = adapter.step(np.full((64, 1), 4.0, np.float32))
    assert done.all()
    assert {info["episode"]["l"] for info in infos} == {4}
    assert not infos[0]["diverged"]


def test_an_environment_without_a_declared_autoreset_mode_is_refused() -> None:
    class Undeclared(CounterVectorEnv):
        metadata = {}  # noqa: RUF012

    with pytest.raises(ValueError, match="autoreset_mode"):
        VectorEnvAdapter(Undeclared((1, 1)))
