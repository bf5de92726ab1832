"""How divergence ends several runs, who watches them, what they hand out, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.parallel import ParallelRuns, create_parallel_runs
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


class Watcher(RunHook[ParallelRuns]):
    """Notes when it is called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def before_update(self, run: ParallelRuns, temperature: Temperature) -> None:
        assert temperature.student.shape == (run.num_instances,)
        self.calls.append(("before", run.step_count))

    def on_step(self, run: ParallelRuns, result: StepResult) -> None:
        assert result.reward.shape == (run.num_runs,)
        self.calls.append(("step", run.step_count))

    def on_epoch_end(self, run: ParallelRuns) -> None:
        self.calls.append(("epoch", run.epoch))


@pytest.mark.parametrize("mode", MODES)
def test_hooks_watch_several_runs_as_they_watch_one(make_run: MakeRun, mode: str) -> None:
    runs = create_parallel_runs(make_run(), 2, mode)  # type: ignore[arg-type]
    watcher = Watcher()
    runs.add_hook(watcher)
    runs.reset([1, 1])
    runs.advance(fixed(), 5)
    steps = [call for step in range(4) for call in (("before", step), ("step", step + 1))]
    assert watcher.calls == [*steps, ("epoch", 1), ("before", 4), ("step", 5)]
    runs.remove_hook(watcher)
    assert runs.hooks == ()
    runs.close()


@pytest.mark.parametrize("mode", MODES)
def test_weights_evaluations_and_results_of_one_of_the_runs_are_those_of_the_single_run(
    make_run: MakeRun, mode: str
) -> None:
    run = make_run()
    single = run.sibling()
    single.reset(2)
    runs = create_parallel_runs(run, 2, mode)  # type: ignore[arg-type]
    runs.reset([1, 2])
    result, alone = runs.advance(fixed(), 5).of_run(1), single.advance(fixed(), 5)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(result.state, alone.state, **close)
    torch.testing.assert_close(result.reward, alone.reward, **close)
    torch.testing.assert_close(result.metrics, alone.metrics, **close)
    torch.testing.assert_close(result.outputs.student_logits, alone.outputs.student_logits.detach(), **close)
    assert torch.equal(result.outputs.labels, alone.outputs.labels)
    assert (result.outputs.num_runs, result.temperature.student.tolist()) == (1, [4.0] * 64)
    weights = runs.weights()
    torch.testing.assert_close(weights[1], {**single.student.state_dict()}, **close)
    before = weights[1]["1.weight"].clone()
    found, expected = runs.evaluate_validation(), single.evaluate_validation()
    torch.testing.assert_close(found.loss[1], expected.loss, **close)
    torch.testing.assert_close(found.accuracy[1], expected.accuracy, **close)
    runs.advance(fixed(), 1)
    assert torch.equal(weights[1]["1.weight"], before)  # nobody changes what was handed out
    runs.close()
