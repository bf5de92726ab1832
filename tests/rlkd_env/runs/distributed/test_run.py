"""Distributed runs without processes of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from one_process import Recording
from torch import Tensor, nn

from agents.rules.simple import FixedTemperature
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.distributed.processes import Processes, ProcessLost
from rlkd_env.runs.distributed.run import DistributedRun
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.settings import Exploration
from rlkd_env.wrappers.exploration import explore


class Replaying(Recording):
    """Hears what another has told."""

    def tell(self, message: Tensor) -> Tensor:
        return self.told.pop(0)

    def tell_object(self, value: Any = None) -> Any:
        return self.told.pop(0)

    def tell_state(self, state: dict[str, Any] | None = None) -> dict[str, Any]:
        return self.told.pop(0)


@pytest.fixture
def make(digits_teacher: nn.Module) -> Callable[..., DistillationRun]:
    def build(processes: Processes | None = None, **settings: Any) -> DistillationRun:
        config = RunConfig.from_keywords(device="cpu", **{"epochs": 3, "student": "mlp12", **settings})
        run = build_run(config, teacher=digits_teacher, processes=processes)
        explore(run, Exploration(first_epoch=2, interval=1))
        return run

    return build


def use(run: DistillationRun) -> list[Tensor]:
    """All that the first process may do."""
    seen = [run.reset(1)]
    for step in range(3):
        result = run.step(Temperature.shared(torch.linspace(1 + step, 8, run.batch_size)))
        seen += [result.state, result.reward, result.metrics["loss"]]
    run.advance(FixedTemperature(4.0), 6)
    snapshot = run.state_dict()
    run.reset(2)
    seen += [run.load_state_dict(snapshot), run.observe(), run.evaluate_validation().loss]
    seen.append(run.step(Temperature.shared(torch.full((run.batch_size,), 4.0))).reward)
    result = run.advance(FixedTemperature(3.0))
    assert run.finished
    return [*seen, result.reward, *run.student.state_dict().values()]


@pytest.mark.parametrize(
    ("reward", "interval"), [("probe_loss", 1), ("probe_loss", 2), ("probe_turns", 1), ("train_progress", 1)]
)
def test_a_group_of_one_process_makes_the_plain_run_bit_for_bit(
    reward: str, interval: int, processes: Recording, make: Callable[..., DistillationRun]
) -> None:
    settings = {"reward": reward, "reward_interval": interval}
    shared, plain = make(processes, **settings), make(**settings)
    assert (shared.num_processes, plain.num_processes) == (1, 1)
    for ours, theirs in zip(use(shared), use(plain), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_what_follows_the_first_process_ends_with_its_student(
    processes: Recording, make: Callable[..., DistillationRun]
) -> None:
    first = make(processes)
    use(first)
    assert isinstance(first, DistributedRun)
    first.stop()
    replaying = Replaying(**{field.name: getattr(processes, field.name) for field in fields(processes)})
    object.__setattr__(replaying, "told", processes.told)
    other = make(replaying)
    assert isinstance(other, DistributedRun)
    other.follow()
    assert replaying.told == []
    for name, value in first.student.state_dict().items():
        assert torch.equal(value, other.student.state_dict()[name]), name


def test_wrong_uses_are_refused_before_the_others_hear_of_them(
    processes: Recording, make: Callable[..., DistillationRun]
) -> None:
    run = make(processes)
    with pytest.raises(RuntimeError, match="not started"):
        run.advance(FixedTemperature(4.0))
    run.reset(0)
    told = len(processes.told)
    with pytest.raises(ValueError, match="expected 64 temperatures"):
        run.step(Temperature.shared(torch.ones(63)))
    with pytest.raises(ValueError, match="at least 1"):
        run.advance(FixedTemperature(4.0), 0)
    with pytest.raises(ValueError, match="no policy of its own"):
        run.advance()
    four = torch.full((64,), 4.0)
    for own in (Temperature(four, four, factor=four), Temperature.shared(four.clone().requires_grad_())):
        with pytest.raises(ValueError, match="are for a policy"):
            run.step(own)
    with pytest.raises(RuntimeError, match="cannot be forked"):
        run.fork()
    with pytest.raises(RuntimeError, match="cannot have siblings"):
        run.sibling()
    assert len(processes.told) == told


def test_a_misfortune_of_one_process_is_one_of_all(processes: Recording) -> None:
    for error in (UsageError("bad\ninput"), OSError("disk full")):
        with pytest.raises(UsageError, match=str(error)), processes.together():
            raise error
    with processes.together():
        pass
    with pytest.raises(ProcessLost, match=r"^connection closed by peer$"), processes.noticing_losses():
        raise RuntimeError("[gloo/pair.cc:561] Connection closed by peer [127.0.0.1]:58281. GLHF!")
    with pytest.raises(RuntimeError, match="shapes"), processes.noticing_losses():
        raise RuntimeError("shapes do not fit")
    assert [processes.is_first_to_notice() for _ in range(3)] == [True, False, False]
