"""Policies over several runs at once: factors, gradients and steps are those of the single runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from agents.rules.create import create_rule
from rlkd_env.errors import UsageError
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]
MODES = ("stacked", "workers", "serial")
SEEDS = (7, 1)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["lskd", "normkd", "wttm", "dtkd"])
def test_a_rule_makes_the_students_that_it_makes_of_single_runs(make_run: MakeRun, name: str, mode: str) -> None:
    gradient = {"gradient": mode == "stacked"} if name != "wttm" else {}
    rule, template = create_rule(name, gradient), make_run(batch_size=32)
    runs = create_parallel_runs(template, 2, mode)  # type: ignore[arg-type]
    runs.reset(SEEDS)
    assert not runs.advance(rule, 12).temperature.student.requires_grad
    students = runs.students()
    runs.close()
    for seed, student in zip(SEEDS, students, strict=True):
        single = template.sibling()
        single.reset(seed)
        single.advance(rule, 12)
        for one, other in zip(student.parameters(), single.student.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_a_random_rule_draws_anew_in_every_step(make_run: MakeRun, mode: str) -> None:
    runs = create_parallel_runs(make_run(), 2, mode)  # type: ignore[arg-type]
    runs.reset(SEEDS)
    rule = create_rule("random")
    drawn = [runs.advance(rule, 1).temperature.student for _ in range(3)]
    runs.close()
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


def test_policies_that_several_runs_cannot_have_are_refused(make_run: MakeRun) -> None:
    runs = create_parallel_runs(make_run(), 2, "serial")
    runs.reset(SEEDS)
    with pytest.raises(UsageError, match="stacked runs, not the mode serial"):
        runs.advance(create_rule("lskd"))
    with pytest.raises(UsageError, match="learned along"):
        runs.advance(create_rule("ctkd"))
    assert runs.step_count == 0
