"""What a task of a comparison may say of seeds and arms."""

from __future__ import annotations

import pytest

from experiments.cli import parse
from experiments.compare.plan import Plan, make_plan
from experiments.config import CompareConfig
from rlkd_env.errors import UsageError

ARMS = ("--fixed-temperatures", "1", "8", "--rules", "lskd", "ctkd", "--arms", "strong", "{rule: lskd}")


def plan(task: str, *options: str) -> Plan:
    config = parse(["compare", "--tasks", "usual", "{}", "special", task, *ARMS, *options])
    assert isinstance(config, CompareConfig)
    return make_plan(config)


def test_a_task_may_have_seeds_of_its_own() -> None:
    found = plan("{seeds: 3}", "--seeds", "2", "--first-seed", "5")
    assert [run.seed for run in found.runs_of("usual", "T=4")] == [5, 6]
    assert [run.seed for run in found.runs_of("special", "T=4")] == [5, 6, 7]
    assert [run.seed for run in found.runs] == sorted(run.seed for run in found.runs)


def test_a_task_may_leave_arms_out_by_wildcards() -> None:
    found = plan("{without: [ctkd, 'T=[18]']}")
    assert list(found.tasks["special"].arms) == ["T=4", "lskd", "strong"]
    assert found.tasks["special"].fixed_arms() == ["T=4"]
    assert list(found.tasks["usual"].arms) == ["T=1", "T=4", "T=8", "lskd", "ctkd", "strong"]
    assert not found.runs_of("special", "ctkd")


def test_a_task_may_have_arms_of_its_own_and_change_others() -> None:
    own = "{T=0.5: {rule: fixed, fixed-temperature: 0.5}, strong: {rule: lskd, method_options: {alpha: 9}}}"
    found = plan(f"{{method: dkd, arms: {own}}}")
    assert found.runs_of("special", "strong")[0].config.run.distillation.method_options == {"alpha": 9}
    assert found.runs_of("usual", "strong")[0].config.run.distillation.method_options == {}
    assert not found.runs_of("usual", "T=0.5")
    assert found.tasks["special"].fixed_arms() == ["T=1", "T=4", "T=8", "T=0.5"]
    assert list(found.arms)[-1] == "T=0.5"
    assert found.arms["strong"] == {"rule": "lskd"}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("{seeds: 0}", "task special: seeds must be at least 1 seed, not 0"),
        ("{seeds: many}", "task special: seeds must be at least 1 seed, not 'many'"),
        ("{without: [cktd]}", "unknown arm that task special is without: 'cktd'. Did you mean 'ctkd'?"),
        ("{without: 'T=*'}", "task special cannot be without the baseline T=4"),
        ("{arms: [lskd]}", r"task special: arms must be options by the names of arms, not \['lskd'\]"),
        ("{arms: {lskd: 3}}", "task special, arm lskd: '3' are no options by name"),
    ],
)
def test_what_does_not_fit_is_told(task: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(task)
