"""Looking at an update does not change it, and what a watch keeps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from credited import batch_norm_and_dropout_student, random_temperatures
from watching import watch

from rlkd_env.credit.base import Calibrator
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.run import DistillationRun
from rlkd_env.wrappers import CalibratedReward, TemperatureAction

MakeRun = Callable[..., DistillationRun]

WATCHING = sorted(name for name, kind in CALIBRATORS.items() if issubclass(kind, Calibrator))


def test_what_a_delayed_reward_leaves_unpaid_is_a_plain_number(make_run: MakeRun) -> None:
    """Checkpoints are read without unpickling, so they hold no NumPy scalars."""
    envs = CalibratedReward(TemperatureAction(KDVectorEnv(run=make_run(batch_size=16, reward_interval=3))))
    envs.reset(seed=0)
    envs.step(np.zeros((16, 1), np.float32))
    state = envs.state_dict()
    assert type(state["unpaid"]) is float
    assert type(state["earned"]) is float


@pytest.mark.parametrize("name", WATCHING)
def test_looking_at_an_update_does_not_change_it(make_run: MakeRun, name: str) -> None:
    def final(watched: bool) -> dict[str, torch.Tensor]:
        run = make_run(epochs=1)
        run.create_student = batch_norm_and_dropout_student
        run.reset(0)
        watch(run, *([CALIBRATORS[name](run)] if watched else []))
        for step in range(4):
            run.step(Temperature.shared(random_temperatures(64, step)))
        return run.student.state_dict()

    for one, other in zip(final(False).values(), final(True).values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", WATCHING)
def test_what_looks_at_one_view_is_refused_where_a_method_compares_two(make_run: MakeRun, name: str) -> None:
    run = make_run(method="crld")
    run.reset(0)
    if not CALIBRATORS[name].forwards_images:
        assert CALIBRATORS[name](run).credit is None
        return
    with pytest.raises(UsageError, match="one view of an image, and the method compares two: there are uniform and"):
        CALIBRATORS[name](run)


def test_a_paused_watch_sees_nothing_and_goes_on_ahead_of_other_hooks() -> None:
    envs = CalibratedReward(KDVectorEnv(16, epochs=1, device="cpu"), "uniform")
    run, other = envs.unwrapped.run, RunHook()
    run.add_hook(other)
    envs.pause()
    envs.pause()
    assert run.hooks == (other,)
    envs.watch()
    envs.watch()
    assert run.hooks == (envs.hook, other)
