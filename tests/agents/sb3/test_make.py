"""Stock agents through the adapter: they solve what can be solved, and run on Digits."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecNormalize
from toy_envs import BestActions

from agents.sb3.families import AGENTS, default_options
from agents.sb3.make import choose_device, continue_from, make_agent
from agents.sb3.monitor import RunMonitor
from agents.sb3.vec_env import VectorEnvAdapter
from rlkd_env.errors import UsageError
from rlkd_env.wrappers import TemperatureAction


def digits(**settings: object) -> TemperatureAction:
    return TemperatureAction(
        gym.make_vec(
            "rlkd/Digits-v0", num_envs=64, **{"epochs": 60, "device": "cpu", "action": "temperature", **settings}
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("ppo", 4000), ("sac", 1500)])
@pytest.mark.parametrize("discount", [0.0, 0.99])
def test_an_agent_finds_the_known_best_actions(name: str, steps: int, discount: float) -> None:
    envs = BestActions(num_envs=64)
    agent = make_agent(name, envs, gamma=discount, seed=0)
    agent.learn(steps * 64)
    found, _ = agent.predict(np.array([[0.0], [1.0]], np.float32), deterministic=True)
    share_of_optimum = found[:, 0] / BestActions.BEST
    assert share_of_optimum.mean() == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(share_of_optimum, 1.0, atol=0.1)


@pytest.mark.parametrize("name", ["td3", "ddpg"])
def test_each_number_of_an_action_has_noise_of_its_own(name: str) -> None:
    agent = make_agent(name, digits(temperatures="separate"), seed=0)
    drawn = np.stack([agent.action_noise() for _ in range(100)])
    assert drawn.shape == (100, 2)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.5
    assert make_agent("sac", digits(), seed=0).action_noise is None


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(AGENTS))
def test_every_agent_runs_two_hundred_steps_of_digits(name: str) -> None:
    envs = digits()
    agent = make_agent(name, envs, seed=0)
    agent.learn(200 * 64)
    assert agent.num_timesteps >= 200 * 64
    assert all(episode["l"] == 240 for episode in agent.ep_info_buffer)
    observation, _ = envs.reset(seed=0)
    action, _ = agent.predict(observation, deterministic=True)
    assert action.shape == (64, 1)
    assert np.isfinite(action).all()
    assert action.std() > 0.0  # instances are told apart


@pytest.mark.parametrize("name", ["ppo", "a2c", "trpo", "recurrent_ppo"])
def test_on_policy_agents_update_every_few_kd_steps(name: str) -> None:
    agent = make_agent(name, digits())
    assert agent.n_steps == 16
    assert agent.rollout_buffer.buffer_size * agent.n_envs == 1024


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sac", "td3", "ddpg", "tqc", "crossq"])
def test_off_policy_agents_update_once_a_kd_step_and_start_after_ten(name: str) -> None:
    agent = make_agent(name, digits())
    agent.learn(12 * 64)
    assert agent._n_updates == 2


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_an_agent_looks_no_further_than_the_next_reward_unless_it_is_told_to(name: str) -> None:
    assert make_agent(name, BestActions()).gamma == 0.0
    assert make_agent(name, BestActions(), gamma=0.9).gamma == 0.9


def test_overrides_take_the_place_of_defaults() -> None:
    agent = make_agent("ppo", BestActions(), n_steps=64, learning_rate=0.5, gamma=0.3)
    assert (agent.n_steps, agent.learning_rate, agent.gamma) == (64, 0.5, 0.3)


def test_rewards_are_normalised_unless_told_otherwise() -> None:
    assert isinstance(make_agent("ppo", BestActions()).get_env(), VecNormalize)
    agent = make_agent("ppo", VectorEnvAdapter(BestActions()), normalize_reward=False)
    assert isinstance(agent.get_env(), RunMonitor)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pppo", {}, "unknown agent 'pppo'. Did you mean 'ppo'.* Valid: a2c"),
        ("ppo", {"learning_rat": 1.0}, "Did you mean 'learning_rate'"),
        ("sac", {"n_steps_": 1.0}, "unknown option of agent 'sac'"),
        ("ppo", {"n_steps": 0}, "n steps must be at least 1, not 0"),
    ],
)
def test_unknown_agents_and_options_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_agent(name, BestActions(), **options)


def test_contributed_agents_name_the_package_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(UsageError, match=r"needs sb3-contrib: pip install sb3-contrib"):
        make_agent("tqc", BestActions())


@pytest.mark.slow
def test_learning_continues_the_current_run_without_a_reset() -> None:
    envs = digits()
    envs.reset(seed=0)
    run = envs.unwrapped.run
    for _ in range(7):
        envs.step(np.zeros((64, 1), np.float32))
    agent = make_agent("ppo", envs, seed=0)
    continue_from(agent, envs.unwrapped.observe())
    agent.learn(16 * 64, reset_num_timesteps=False)
    assert run.step_count == 7 + 16
    agent.learn(16 * 64, reset_num_timesteps=False)
    assert run.step_count == 7 + 32


@pytest.mark.parametrize("num_envs", [32, 64, 128, 200, 256, 512, 2048])
def test_ppo_makes_about_as_many_gradient_steps_with_many_slots_as_with_few(num_envs: int) -> None:
    options = default_options("ppo", num_envs)
    rows = options["n_steps"] * num_envs
    steps = options["n_epochs"] * -(-rows // options["batch_size"])
    assert 1 <= steps <= 5
    assert options["n_steps"] >= 16
    if rows > options["batch_size"]:
        assert rows % options["batch_size"] == 0


@pytest.mark.parametrize(
    ("slots", "updates", "chosen"),
    [(64, 6_399, (16, 1024, 5)), (64, 6_400, (64, 1024, 1)), (512, 10**6, (16, 2048, 1)), (200, 10**6, (20, 1000, 1))],
)
def test_ppo_learns_from_every_row_once_in_runs_of_many(slots: int, updates: int, chosen: tuple[int, int, int]) -> None:
    class OfARun(BestActions):
        template = SimpleNamespace(device=torch.device("cpu"), total_steps=updates)

    agent = make_agent("ppo", OfARun(num_envs=slots))
    assert (agent.n_steps, agent.batch_size, agent.n_epochs) == chosen
    own = make_agent("ppo", OfARun(num_envs=slots), n_steps=8)
    assert (own.n_steps, own.n_epochs) == (8, default_options("ppo", slots)["n_epochs"])


@pytest.mark.parametrize(("steps", "n_steps", "batch_size"), [(4, 4, 256), (78, 13, 832), (79, 1, 64), (32, 16, 1024)])
def test_rollouts_make_up_the_steps_after_which_learning_may_pause(steps: int, n_steps: int, batch_size: int) -> None:
    agent = make_agent("ppo", BestActions(num_envs=64), steps_per_phase=steps)
    assert (agent.n_steps, agent.batch_size) == (n_steps, batch_size)
    assert make_agent("ppo", BestActions(num_envs=64), steps_per_phase=steps, n_steps=32).n_steps == 32
    assert make_agent("a2c", BestActions(num_envs=64), steps_per_phase=steps).n_steps == n_steps
    make_agent("sac", BestActions(num_envs=64), steps_per_phase=steps)  # which learns after every step


@pytest.mark.parametrize(
    ("name", "slots", "chosen"), [("ppo", 1024, "cpu"), ("ppo", 2048, "meta"), ("sac", 2048, "cpu")]
)
def test_only_an_on_policy_agent_of_many_slots_is_where_the_run_is(name: str, slots: int, chosen: str) -> None:
    class OnADevice(BestActions):
        template = SimpleNamespace(device=torch.device("meta"))

    assert choose_device(VectorEnvAdapter(OnADevice(slots)), AGENTS[name]).type == chosen


def test_an_environment_without_a_run_has_its_agent_on_the_cpu() -> None:
    assert make_agent("ppo", BestActions(2048)).device.type == "cpu"


def test_the_quick_adam_makes_the_same_agent_bit_for_bit() -> None:
    usual = {"policy_kwargs": {"net_arch": [64, 64], "log_std_init": -1.0}}
    quick, plain = (make_agent("ppo", BestActions(), seed=0, **options) for options in ({}, usual))
    groups = [agent.policy.optimizer.param_groups[0] for agent in (quick, plain)]
    assert [group["foreach"] for group in groups] == [True, None]
    for agent in (quick, plain):
        agent.set_random_seed(0)
        agent.learn(2 * agent.n_steps * agent.n_envs)
    for one, other in zip(quick.policy.parameters(), plain.policy.parameters(), strict=True):
        assert torch.equal(one, other)
