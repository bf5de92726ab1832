"""The average and the ensemble of a population's students."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from experiments.session.population.keeping import Ensemble, average_weights
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.randomness import seeded


class Normed(nn.Module):
    """A student with running statistics."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        first = (nn.Flatten(), nn.Linear(64, 8), nn.Dropout(dropout), nn.BatchNorm1d(8))
        self.layers = nn.Sequential(*first, nn.ReLU(), nn.Linear(8, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def students(count: int, dropout: float = 0.0) -> list[Normed]:
    made = list[Normed]()
    for seed in range(count):
        with seeded(seed, torch.device("cpu")):
            made.append(Normed(dropout))
    return made


def test_an_ensembles_probabilities_are_the_mean_of_its_members() -> None:
    members, images = [one.eval() for one in students(3)], torch.rand(5, 1, 8, 8)
    expected = torch.stack([one(images).softmax(dim=-1) for one in members]).mean(dim=0)
    found = Ensemble(members)(images)
    torch.testing.assert_close(found.softmax(dim=-1), expected)
    torch.testing.assert_close(found.exp(), expected)


def test_weights_are_averaged_and_running_statistics_are_those_of_an_epoch(
    make_run: Callable[..., DistillationRun],
) -> None:
    run, members = make_run(), students(3)
    before = [{name: value.clone() for name, value in one.state_dict().items()} for one in members]
    averaged = average_weights(members, run, seed=5)
    for name, value in averaged.named_parameters():
        torch.testing.assert_close(value, torch.stack([one[name] for one in before]).mean(dim=0))
    stream = run.create_stream(5)
    hidden = [averaged.layers[:2](stream.batch(step).images) for step in range(run.steps_per_epoch)]
    torch.testing.assert_close(
        averaged.layers[3].running_mean, torch.stack([one.mean(dim=0) for one in hidden]).mean(0)
    )
    for one, kept in zip(members, before, strict=True):
        torch.testing.assert_close({**one.state_dict()}, kept, rtol=0, atol=0)  # the students stay as they are


def test_the_average_is_the_same_again_where_dropout_comes_before_a_batch_norm(
    make_run: Callable[..., DistillationRun],
) -> None:
    run = make_run()
    one, other = (average_weights(students(2, dropout=0.5), run, seed=5).state_dict() for _ in range(2))
    torch.testing.assert_close({**one}, {**other}, rtol=0, atol=0)
