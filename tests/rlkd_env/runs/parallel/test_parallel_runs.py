"""What several runs refuse, how divergence ends them, and how their way of computing is chosen."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import KD
from rlkd_env.runs.parallel import choice, create_parallel_runs
from rlkd_env.runs.parallel.workers import WorkerRuns, why_no_workers
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]
MODES = ("stacked", "workers", "serial")


def fixed(value: float = 4.0) -> Callable[[InstanceOutputs], Temperature]:
    return lambda outputs: Temperature.shared(torch.full(outputs.labels.shape, value))


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


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))


def dropout() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))


class HiddenDropout(nn.Sequential):
    """Draws random numbers where no module tells so."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(images, 0.5))


class Branching(nn.Sequential):
    """Looks at values, which vmap cannot follow."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.sum() > 0 else -images)


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images.flatten(1)))[:, :10]


def layers() -> tuple[nn.Module, ...]:
    return nn.Flatten(), nn.Linear(64, 10)


@pytest.mark.parametrize(
    ("create_student", "reason"),
    [
        (batch_norm, "buffers"),
        (dropout, "draws random numbers"),
        (lambda: HiddenDropout(*layers()), "vmap"),
        (lambda: Branching(*layers()), "vmap"),
        (Tied, "shares weights"),
    ],
)
def test_students_that_cannot_be_stacked_are_refused_and_run_otherwise(
    make_run: MakeRun, create_student: Callable[[], nn.Module], reason: str
) -> None:
    run = make_run()
    run.create_student = create_student
    with pytest.raises(UsageError, match=rf"cannot be stacked: .*{reason}.*serial"):
        create_parallel_runs(run, 2, "stacked")
    assert create_parallel_runs(run, 2).mode != "stacked"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"method": "crd"}, "CRD compares features"),
        ({"student": "digits_cnn", "memory_format": "contiguous", "method": "sp"}, "SP compares features"),
        ({"sequence_phases": 3}, "curriculum"),
        ({"compile": True}, "compiled"),
    ],
)
def test_methods_and_samplers_that_cannot_be_stacked_are_refused(
    make_run: MakeRun, settings: dict, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        create_parallel_runs(make_run(**settings), 2, "stacked")


def test_a_method_whose_losses_depend_on_the_whole_batch_is_found_out(make_run: MakeRun) -> None:
    class Centred(KD):
        def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
            (loss,) = super().logit_losses(outputs, temperature).values()
            return {"kd": loss - loss.mean()}

    class Remembering(KD):
        def after_update(self, outputs: InstanceOutputs) -> None:
            self.latest = outputs

    run = make_run()
    for method, reason in ((Centred, "depends on the others"), (Remembering, "remembers")):
        run.create_method = lambda _, method=method: method()
        with pytest.raises(UsageError, match=reason):
            create_parallel_runs(run, 2, "stacked")


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


def test_fully_connected_students_are_stacked_by_choice_which_is_made_once(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    assert (
        create_parallel_runs(run, 16).mode == "stacked"
    )  # 8 times as fast, so that no busy machine can tell otherwise
    monkeypatch.setattr(choice, "_measure", lambda *_: pytest.fail("measured again"))
    assert create_parallel_runs(run.sibling(), 16).mode == "stacked"
    with pytest.raises(pytest.fail.Exception):
        create_parallel_runs(run, 17)


@pytest.mark.parametrize(("stacked_seconds", "expected"), [(3.9, "serial"), (3.5, "stacked")])
def test_another_way_is_taken_only_if_it_saves_a_tenth_of_one_after_the_other(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, stacked_seconds: float, expected: str
) -> None:
    seconds = {"serial": 2.0, "stacked": stacked_seconds, "workers": 100.0}  # of one after the other: for 2 runs of 4
    monkeypatch.setattr(choice, "_seconds_per_step", lambda runs, **_: seconds[runs.mode])
    assert choice._measure(make_run(), 4) == expected


def test_the_earlier_name_of_serial_runs_is_understood(make_run: MakeRun) -> None:
    assert create_parallel_runs(make_run(), 2, "sequence").mode == "serial"


def test_choosing_leaves_the_global_generator_and_the_template_alone(make_run: MakeRun) -> None:
    run = make_run(batch_size=8, epochs=1)
    before = torch.get_rng_state()
    runs = create_parallel_runs(run, 2)
    runs.reset([0, 1])
    runs.students()
    assert torch.equal(torch.get_rng_state(), before)
    assert run.seed == -1
    assert not hasattr(run, "outputs")


class Failing(nn.Sequential):
    """Fails at the first image whose training began."""

    def forward(self, images: Tensor) -> Tensor:
        raise ArithmeticError("as the user's network may")


def test_a_failure_in_a_worker_is_told_and_ends_all(make_run: MakeRun) -> None:
    run = make_run()
    run.create_student = lambda: Failing(*layers())
    runs = WorkerRuns(run, 3, num_workers=2)
    processes = runs._processes
    with pytest.raises(RuntimeError, match="as the user's network may"):
        runs.reset([0, 1, 2])
    assert not any(process.is_alive() for process in processes)
    with pytest.raises(RuntimeError, match="closed"):
        runs.reset([0, 1, 2])


def test_workers_that_are_gone_are_told_and_closing_twice_is_fine(make_run: MakeRun) -> None:
    runs = WorkerRuns(make_run(), 2, num_workers=2)
    runs.reset([0, 1])
    pid = runs._processes[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="gone"):
        runs.advance(fixed())
    runs.close()


def test_workers_are_refused_where_they_cannot_be(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    assert why_no_workers(run) is None
    monkeypatch.setattr("rlkd_env.runs.parallel.workers.sys.platform", "win32")
    with pytest.raises(UsageError, match="Linux only"):
        create_parallel_runs(run, 2, "workers")
    monkeypatch.undo()
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    assert "fork" in str(why_no_workers(run))
    monkeypatch.undo()
    run.device = torch.device("meta")
    assert "share" in str(why_no_workers(run))
