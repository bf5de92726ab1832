"""A curriculum: phases, their images, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.curriculum import CurriculumSampler
from rlkd_env.sampling.settings import Curriculum, Exploration
from rlkd_env.wrappers.exploration import explore

MakeRun = Callable[..., DistillationRun]


def step_to(run: DistillationRun, step: int) -> None:
    while run.step_count < step:
        run.step(Temperature.shared(torch.full((run.batch_size,), 4.0)))


def sampler_of(run: DistillationRun) -> CurriculumSampler:
    assert isinstance(run.sampler, CurriculumSampler)
    return run.sampler


def test_phases_are_equally_long_and_their_shares_grow_to_all() -> None:
    curriculum = Curriculum(phases=4, first_share=0.4)
    assert [curriculum.phase(epoch, 12) for epoch in range(12)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [curriculum.share(phase) for phase in range(4)] == pytest.approx([1.0, 0.4, 0.7, 1.0])


def test_a_phase_trains_on_the_images_that_its_snapshot_finds_easiest(make_run: MakeRun) -> None:
    run = make_run(epochs=8, sequence_phases=4, sequence_first_share=0.5)
    run.reset(0)
    assert len(sampler_of(run).pool) == 300
    step_to(run, 2 * run.steps_per_epoch)  # the second phase begins, before any of its updates
    with torch.no_grad():
        losses = F.cross_entropy(run.student.eval()(run.splits.train.images), run.splits.train.labels, reduction="none")
    run.student.train()
    pool = sampler_of(run).pool
    assert torch.equal(pool, losses.argsort(stable=True)[:150])
    assert losses[pool].max() <= losses.sort().values[150]
    drawn = []
    while run.epoch == 2:
        drawn.append(run.batch.indices)
        step_to(run, run.step_count + 1)
    counts = torch.cat(drawn).bincount(minlength=300)
    assert counts[pool].min() == 1  # 256 images of an epoch from 150
    assert counts[pool].max() == 2
    assert counts.sum() == counts[pool].sum() == 256


def test_a_fork_goes_on_with_the_same_images(make_run: MakeRun) -> None:
    run = make_run(epochs=6, sequence_phases=3, sequence_first_share=0.3)
    run.reset(0)
    step_to(run, 2 * run.steps_per_epoch + 1)
    fork = run.fork()
    step_to(run, run.total_steps - 1)
    assert sampler_of(fork).pool.shape == (90,)
    step_to(fork, run.total_steps - 1)
    assert torch.equal(run.batch.indices, fork.batch.indices)
    assert torch.equal(run.outputs.student_logits, fork.outputs.student_logits)
    step_to(run, run.total_steps)
    assert len(sampler_of(run).pool) == 300


def test_a_new_run_forgets_the_order(make_run: MakeRun) -> None:
    run = make_run(epochs=6, sequence_phases=3)
    run.reset(0)
    first = run.batch.indices
    step_to(run, run.total_steps)
    run.reset(0)
    assert len(sampler_of(run).pool) == 300
    assert torch.equal(run.batch.indices, first)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sequence_phases": 2}, "at least 3 phases"),
        ({"sequence_phases": -1}, "at least 3 phases"),
        ({"sequence_phases": 4, "epochs": 3}, "needs as many epochs, not 3"),
        ({"sequence_phases": 3, "sequence_first_share": 0.0}, "above 0 and at most 1"),
    ],
)
def test_impossible_phases_are_refused(settings: dict, message: str, make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match=message):
        make_run(**settings)


def test_a_curriculum_and_exploration_exclude_each_other(make_run: MakeRun) -> None:
    run = make_run(epochs=6, sequence_phases=3)
    with pytest.raises(UsageError, match="both choose the images"):
        explore(run, Exploration(first_epoch=2))
