"""The host's threads while an agent learns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from toy_envs import BestActions

from agents.sb3.make import make_agent
from agents.sb3.threads import HostThreads


class Watched(BestActions):
    """Notes with how many threads it is stepped."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def step(self, actions: np.ndarray) -> Any:
        self.threads.add(torch.get_num_threads())
        return super().step(actions)


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_while_learning(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> tuple[set[int], set[int]]:
    """Numbers of threads while an agent acts, and while it updates its networks."""
    env, updates = Watched(), set()
    agent = make_agent(name, env, seed=0)
    train = agent.train
    monkeypatch.setattr(
        agent, "train", lambda *rest, **more: (updates.add(torch.get_num_threads()), train(*rest, **more))
    )
    with HostThreads(torch.device(device)) as threads:
        agent.learn(2000, callback=threads)
    assert torch.get_num_threads() == 3
    return env.threads, updates


def test_beside_a_gpu_an_agent_acts_with_one_thread_and_learns_from_rollouts_with_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert threads_while_learning("ppo", "cuda", monkeypatch) == ({1}, {3})
    assert threads_while_learning("sac", "cuda", monkeypatch) == ({1}, {1})


def test_on_a_cpu_the_threads_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert threads_while_learning("ppo", "cpu", monkeypatch) == ({3}, {3})


def test_updates_take_four_threads_at_most_and_all_are_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(6)
    agent = make_agent("ppo", BestActions(), seed=0)

    def fail() -> None:
        raise RuntimeError(f"{torch.get_num_threads()} threads")

    monkeypatch.setattr(agent, "train", fail)
    with pytest.raises(RuntimeError, match="4 threads"), HostThreads(torch.device("cuda")) as threads:
        agent.learn(2000, callback=threads)
    assert torch.get_num_threads() == 6
