"""The phases of an agent within a run: which epochs it learns in, acts in and explores in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from parsed import distill_config
from torch import Tensor

from experiments.session.prepare import prepare
from experiments.session.session import DistillSession
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature

QUICK = ("--student", "mlp12", "--device", "cpu", "--no-progress", "--no-tensorboard")


@dataclass
class Watched:
    """What the updates of an epoch were like."""

    is_learning: list[bool] = field(default_factory=list)
    temperatures: list[Tensor] = field(default_factory=list)
    mixed_shares: list[float] = field(default_factory=list)
    images: set[int] = field(default_factory=set)
    rewards: list[float] = field(default_factory=list)


def watched_session(*options: str) -> tuple[DistillSession, dict[int, Watched]]:
    session = prepare(distill_config(*QUICK, *options), writes=False)
    epochs: dict[int, Watched] = {}
    run, step = session.run, session.run.step

    def spy(temperature: Temperature, is_rewarded: bool = True) -> Any:
        epoch, outputs = epochs.setdefault(run.epoch + 1, Watched()), run.outputs
        assert outputs.indices is not None
        epoch.is_learning.append(is_rewarded)
        epoch.temperatures.append(temperature.student.detach())
        epoch.mixed_shares.append(float(outputs.is_mixed.float().mean()))
        epoch.images |= {*outputs.indices.tolist()}
        result = step(temperature, is_rewarded)
        epoch.rewards.append(float(result.reward))
        return result

    run.step = spy  # type: ignore[method-assign]
    return session, epochs


@pytest.mark.slow
def test_the_papers_preset_has_the_phases_of_the_public_code() -> None:
    session, epochs = watched_session("--preset", "paper", "--epochs", "62")
    session.execute()
    assert [*epochs] == [*range(1, 63)]
    learning = [epoch for epoch, seen in epochs.items() if any(seen.is_learning)]
    assert learning == [40, 60]
    assert all(all(epochs[epoch].is_learning) for epoch in learning)  # no rollout ends or begins within an epoch
    assert [epoch for epoch, seen in epochs.items() if any(seen.mixed_shares)] == learning
    for epoch in learning:  # all images are drawn, not 30 pairs alone, and the tenth of the confident ones is mixed
        assert len(epochs[epoch].images) > 200
        assert 0.05 < sum(epochs[epoch].mixed_shares) / 4 < 0.15
    for epoch, seen in epochs.items():
        chosen = torch.cat(seen.temperatures)
        if epoch <= 20:
            assert torch.equal(chosen, torch.full_like(chosen, 4.0))
        elif epoch < 40:  # the untrained agent draws; the public code's are 10 * sigmoid(N(0, 0.6)): 5.0 +- 1.4
            assert 5.0 < float(chosen.mean()) < 6.0
            assert 1.2 < float(chosen.std()) < 2.0


@pytest.mark.slow
@pytest.mark.parametrize("interval", [2, 7])
def test_rollouts_fill_the_epochs_in_which_the_agent_learns(interval: int) -> None:
    options = ("--agent", "ppo", "--learn-interval", str(interval), "--warmup-epochs", "1", "--epochs", "16")
    session, epochs = watched_session(*options, "--train-images", "200", "--batch-size", "16")  # 12 updates an epoch
    session.execute()
    learning = [epoch for epoch, seen in epochs.items() if any(seen.is_learning)]
    assert learning == [*range(1 + interval, 17, interval)]
    assert all(all(epochs[epoch].is_learning) for epoch in learning)


@pytest.mark.slow
def test_delayed_rewards_of_a_learning_epoch_are_its_own_gain() -> None:
    options = ("--agent", "ppo", "--learn-interval", "3", "--warmup-epochs", "1", "--epochs", "8", "--no-explore")
    watched = []
    for interval in ("3", "1"):  # the same updates up to the end of the first rollout, the fourth epoch
        session, epochs = watched_session(*options, "--reward", "probe_loss", "--reward-interval", interval)
        session.execute()
        watched.append(epochs[4])
    delayed, at_once = watched
    for temperatures, same in zip(delayed.temperatures, at_once.temperatures, strict=True):
        assert torch.equal(temperatures, same)
    assert delayed.rewards[2] == pytest.approx(sum(at_once.rewards[:3]), abs=1e-6)


def test_an_agent_that_cannot_draw_is_told_of_before_the_run() -> None:
    with pytest.raises(UsageError, match="choose acting mean"):
        watched_session("--agent", "ppo", "--acting", "sample", "--agent-options", "use_sde", "True")
