"""How divergence ends several runs, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]

MODES = ("stacked", "workers", "serial")


def fixed(value: float = 4.0) -> Callable[[InstanceOutputs], Temperature]:
    return lambda outputs: Temperature.shared(torch.full(outputs.labels.shape, value))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_diverges_earns_the_penalty_once_and_leaves_the_others_alone(make_run: MakeRun, mode: str) -> None:
    run = make_run(divergence_penalty=-7.0)
    single = run.sibling()
    single.reset(2)
    runs = create_parallel_runs(run, 2, mode)
    runs.reset([1, 2])
    infinite = torch.full((128,), 4.0)
    infinite[:64] = 1e30  # whose square is not a float32
    for step in range(4):
        result = runs.step(Temperature.shared(infinite if step == 1 else torch.full((128,), 4.0)))
        alone = single.step(fixed()(single.outputs))
        assert result.diverged.tolist() == [step >= 1, False]
        if step == 0:
            assert result.reward[0] > -7.0
        else:
            assert float(result.reward[0]) == (-7.0 if step == 1 else 0.0)
        torch.testing.assert_close(result.reward[1], alone.reward, atol=1e-6, rtol=1e-4)
        assert result.state.isfinite().all()
        assert not result.done
    state = runs.state_dict()
    runs.load_state_dict(state)
    assert runs.diverged.tolist() == [True, False]
    assert float(runs.step(Temperature.shared(torch.full((128,), 4.0))).reward[0]) == 0.0
    runs.close()


def test_an_advance_ends_with_the_epoch_in_which_the_last_run_diverges(make_run: MakeRun) -> None:
    runs = create_parallel_runs(make_run(epochs=50), 2, "stacked")
    runs.reset([0, 1])
    assert runs.advance(fixed(1e30)).done
    assert runs.step_count == runs.steps_per_epoch


def test_misuse_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    with pytest.raises(UsageError, match="Did you mean 'stacked'"):
        create_parallel_runs(run, 2, "stackd")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 1"):
        create_parallel_runs(run, 0, "serial")
    runs = create_parallel_runs(run, 2, "stacked")
    with pytest.raises(RuntimeError, match="reset"):
        runs.advance(fixed())
    with pytest.raises(ValueError, match="expected 2 seeds, got 3"):
        runs.reset([1, 2, 3])
    runs.reset([1, 2])
    with pytest.raises(ValueError, match="expected 128 temperatures"):
        runs.step(Temperature.shared(torch.ones(64)))
    with pytest.raises(ValueError, match="at least 1"):
        runs.advance(fixed(), 0)
