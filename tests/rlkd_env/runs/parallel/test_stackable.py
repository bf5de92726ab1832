"""What cannot be stacked is refused, and runs otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import KD
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]


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


class AveragedStatistics(nn.Module):
    """Looks at shapes, so that it cannot be traced, and needs a number out of a tensor, which vmap has none of."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise, self.linear = nn.BatchNorm1d(64, momentum=None), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.normalise(images.flatten(1))) if images.shape[1] == 1 else images


class ChangingItsMind(nn.Module):
    """Computes something else in evaluation, which a trace of its training does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.linear(images.flatten(1))
        return logits if self.training else 2.0 * logits


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("create_student", "reason"),
    [
        (dropout, "draws random numbers"),
        (lambda: HiddenDropout(*layers()), "draws random numbers"),
        (lambda: Branching(*layers()), "vmap"),
        (Tied, "shares weights"),
        (AveragedStatistics, "vmap"),
        (ChangingItsMind, "something else"),
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
        ({"method": "crld"}, "CRLD compares two views of an image"),
        ({"sequence_phases": 3}, "curriculum"),
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
