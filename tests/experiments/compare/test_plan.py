"""Which runs a comparison's options mean, and what they refuse before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.rules.create import RULES
from experiments.cli import main, parse
from experiments.commands.compare import _finished, _write
from experiments.compare import plan as planning
from experiments.compare.plan import Plan, check_folders, make_plan
from experiments.compare.work import Outcome
from experiments.config import CompareConfig, config_hash
from experiments.config.presets import preset_names
from experiments.session.prepare import prepare
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.run import DistillationRun


def plan(*options: str) -> Plan:
    config = parse(["compare", *options])
    assert isinstance(config, CompareConfig)
    return make_plan(config)


def test_ready_made_arms_have_speaking_names() -> None:
    found = plan(
        *("--rules", "fixed", "lskd", "--fixed-temperatures", "8", "2s", "1.0", "--agents", "ppo", "sac"),
        *("--calibrators", "uniform", "gradient", "--policies", "mine", "runs/mine", "--student-alone"),
        *("--arms", "strong", "{rule: lskd, method-options: {kd_weight: 9}}", "--seeds", "2", "--first-seed", "7"),
    )
    assert list(found.arms) == [
        *("T=1", "T=4", "T=8", "T=2s", "lskd", "ppo-uniform", "ppo-gradient", "sac-uniform", "sac-gradient"),
        *("mine", "student_alone", "strong"),
    ]
    assert found.baseline == "T=4"
    assert found.tasks["digits"].fixed_arms() == ["T=1", "T=4", "T=8", "T=2s"]
    assert [run.seed for run in found.runs_of("digits", "strong")] == [7, 8]
    strong, alone, mine = (found.runs_of("digits", arm)[0].config for arm in ("strong", "student_alone", "mine"))
    assert (strong.agent.rule, strong.run.distillation.method_options) == ("lskd", {"kd_weight": 9})
    assert alone.run.distillation.method == "cross_entropy"
    assert (mine.agent.policy, mine.agent.rule) == ("runs/mine", None)
    assert str(mine.folder) == "comparisons/digits/runs/digits/mine/seed7"


@pytest.mark.parametrize("named", [(), ("--rule", "anneal")])
def test_a_rules_options_are_those_of_its_arm_alone(named: tuple[str, ...]) -> None:
    found = plan("--rules", "anneal", "dts", *named, "--rule-options", "first", "2s")
    options = {arm: found.runs_of("digits", arm)[0].config.agent.rule_options for arm in ("anneal", "dts", "T=4")}
    assert options == {"anneal": {"first": "2s"}, "dts": {}, "T=4": {}}


def test_who_is_taken_back_goes_with_the_arguments() -> None:
    below = ("--agent", "ppo", "--agent-options", "n_steps", "4")
    arm = plan(*below, "--arms", "alone", "{agent: null, rule: lskd}").runs_of("digits", "alone")[0].config.agent
    assert (arm.agent, arm.agent_options) == (None, {})
    below = ("--rule", "lskd", "--rule-options", "tau", "3")
    arm = plan(*below, "--arms", "usual", "{rule: null}").runs_of("digits", "usual")[0].config.agent
    assert (arm.rule, arm.rule_options) == (None, {})


class CountedList(list):  # type: ignore[type-arg]
    """A list that counts how often somebody goes through it."""

    rounds = 0

    def __iter__(self) -> Iterator[Any]:
        self.rounds += 1
        return super().__iter__()


def test_the_work_beside_the_runs_grows_with_their_number_and_not_with_its_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[object] = []
    monkeypatch.setattr(planning, "config_hash", lambda settings: hashed.append(settings) or config_hash(settings))
    config = parse(["compare", "--rules", "lskd", "--seeds", "20", "--out", str(tmp_path)])
    assert isinstance(config, CompareConfig)
    found = make_plan(config)
    found = replace(found, runs=CountedList(found.runs))
    check_folders(found.runs, overwrite=False)
    outcomes = {run.name: Outcome(run, None, "not made") for run in found.runs}
    assert not _finished(found.runs)
    found.runs.rounds = 0
    rows, _ = _write(config, found, outcomes)
    assert [(row.arm, row.seed) for row in rows] == [(arm, seed) for arm in ("T=4", "lskd") for seed in range(20)]
    assert found.runs.rounds <= 2  # and not once for every row or arm
    assert len(hashed) == len(found.runs)


def test_agents_without_calibrators_take_the_one_that_holds_for_all() -> None:
    found = plan("--agents", "ppo", "--calibrator", "uniform")
    assert found.runs_of("digits", "ppo")[0].config.agent.calibrator == "uniform"


def test_all_rules_are_all_rules() -> None:
    assert set(plan("--rules", "all").arms) == {*RULES} - {"fixed"} | {"T=4"}


def test_arms_come_before_tasks_and_these_before_the_options_for_all() -> None:
    found = plan(
        *("--tasks", "small", "{epochs: 3, preset: fashion_mnist}", "large", "{epochs: 9, train_images: 200}"),
        *("--arms", "mine", "{rule: linear, train_images: 100}", "--epochs", "5", "--momentum", "0.5"),
    )
    small, large = (found.runs_of(task, "mine")[0].config.run for task in ("small", "large"))
    assert (small.data.dataset, small.recipe.epochs, small.networks.student) == ("fashion_mnist", 3, "cnn8")
    assert small.recipe.momentum == 0.9  # the preset's
    assert (large.data.dataset, large.recipe.epochs, large.recipe.momentum, large.data.train_images) == (
        "digits",
        9,
        0.5,
        100,
    )
    assert found.runs_of("large", "T=4")[0].config.run.data.train_images == 200


def test_arguments_of_another_choice_are_left_behind() -> None:
    found = plan("--method", "dkd", "--method-options", "beta", "3", "--student-alone", "--rules", "lskd")
    assert found.runs_of("digits", "lskd")[0].config.run.distillation.method_options == {"beta": 3}
    assert found.runs_of("digits", "student_alone")[0].config.run.distillation.method_options == {}


def test_a_preset_is_laid_under_the_command_line() -> None:
    found = plan("--preset", "digits", "--seeds", "1", "--agents", "sac")
    assert "sac-gradient" in found.arms
    assert "ppo-gradient" not in found.arms
    assert {*RULES} - {"fixed"} <= set(found.arms)
    assert len(found.runs) == len(found.arms)


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "cifar100"])
def test_ready_made_comparisons_sweep_eight_temperatures_at_least(name: str) -> None:
    found = plan("--preset", name)
    assert len(found.tasks[name].fixed_arms()) >= 8
    assert {"T=4", "student_alone", "pretrained"} <= set(found.arms)


@pytest.mark.parametrize("name", preset_names("compare"))
def test_ready_made_comparisons_have_the_controls_and_no_run_twice(name: str) -> None:
    found = plan("--preset", name)
    of_methods = name.startswith("methods")
    controls = {"T=4", "student_alone", *([] if of_methods else ["T=1"])}
    assert all(controls <= set(task.arms) for task in found.tasks.values())
    data = list(dict.fromkeys(run.config.run.data.dataset for run in found.runs))
    assert name == "all" or data == (["digits", "cifar100"] if of_methods else [name])
    assert name == "all" or len(found.tasks) == len(data)
    for task in found.tasks:
        runs = [run for run in found.runs if run.task == task]
        assert len({run.hash for run in runs}) == len(runs)


def test_the_comparison_over_all_tasks_has_what_it_promises() -> None:
    found = plan("--preset", "all")
    assert len(found.tasks) == 9
    fixed = {f"T={temperature}" for temperature in (1, 2, 3, 4, 6, 8, 12, 16)}
    ways = {"anneal", "cosine", "random", "dts", "normkd-0.9", "ctkd", "pretrained", "ppo-paper", "ppo-anneal"}
    detection = found.tasks.pop("digits-detection")
    assert {"T=0.5", "T=1", "T=2", "T=4"} <= set(detection.fixed_arms())
    assert ({*ways, "student_alone"} <= set(detection.arms), detection.seeds) == (True, 3)
    for name, task in found.tasks.items():
        assert {*fixed, *ways, "student_alone", "lskd-9", "dtkd"} <= set(task.arms), name
        assert fixed <= set(task.fixed_arms()), name
        assert task.seeds == (20 if name.startswith("digits") else 5)
    published = {task: found.runs_of(task, "lskd-9")[0].config.run for task in ("digits", "cifar100-dkd")}
    assert published["digits"].distillation.method_options == {"kd_weight": 9}
    of_dkd = {"alpha": 9, "beta": 18, "warmup_epochs": 1}
    assert (published["cifar100-dkd"].recipe.epochs, published["cifar100-dkd"].distillation.method_options) == (
        20,
        of_dkd,
    )


def test_a_hash_tells_settings_apart_whatever_their_order() -> None:
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1}) != config_hash({"a": 2, "b": 1})
    first, second = plan("--seeds", "2").runs
    assert first.hash != second.hash
    assert first.hash == plan("--out", "elsewhere").runs[0].hash


def test_a_part_of_the_runs_can_be_chosen_to_be_made_now() -> None:
    arms = ("--tasks", "a", "{}", "b", "{}", "--fixed-temperatures", "1", "--rules", "lskd", "--seeds", "2")
    everything = plan(*arms)
    assert everything.chosen == everything.runs
    for only, expected in {
        ("a",): {f"a/{arm}/seed{seed}" for arm in ("T=1", "T=4", "lskd") for seed in (0, 1)},
        ("*/T=*",): {f"{task}/T={t}/seed{seed}" for task in "ab" for t in (1, 4) for seed in (0, 1)},
        ("b/lskd", "*/T=4/seed1"): {"b/lskd/seed0", "b/lskd/seed1", "a/T=4/seed1", "b/T=4/seed1"},
    }.items():
        found = plan(*arms, "--only", *only)
        assert {run.name for run in found.chosen} == expected
        assert [run.hash for run in found.runs] == [run.hash for run in everything.runs]


def test_the_device_that_auto_finds_does_not_tell_runs_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = plan("--seeds", "1").runs
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert plan("--seeds", "1").runs[0].hash == found.hash
    assert plan("--seeds", "1", "--device", "cpu").runs[0].hash != found.hash


class _Recorder(RunHook):
    """The first student, and the images of every batch."""

    def __init__(self) -> None:
        self.first: dict[str, torch.Tensor] = {}
        self.indices: list[torch.Tensor] = []

    def before_update(self, run: DistillationRun, temperature: Temperature) -> None:
        if not self.first:
            self.first = {name: value.clone() for name, value in run.student.state_dict().items()}
        self.indices.append(run.batch.indices)


@pytest.mark.slow
def test_all_arms_start_with_the_same_student_and_see_the_same_batches(tmp_path: Path) -> None:
    found = plan(
        *("--out", str(tmp_path), "--rules", "ctkd", "random", "--agents", "ppo", "--student-alone", "--seeds", "2"),
        *("--epochs", "2", "--warmup-epochs", "1", "--device", "cpu"),
    )
    recorders = {}
    for run in found.runs:
        session = prepare(run.config)
        session.watchers.append(recorder := _Recorder())
        session.execute()
        recorders[run.arm, run.seed] = recorder
    for (_, seed), recorder in recorders.items():
        reference = recorders["T=4", seed]
        assert all(torch.equal(recorder.first[name], value) for name, value in reference.first.items())
        assert len(recorder.indices) == 8
        assert torch.equal(torch.stack(recorder.indices), torch.stack(reference.indices))
    one, two = recorders["T=4", 0], recorders["T=4", 1]
    assert not torch.equal(torch.stack(one.indices), torch.stack(two.indices))
    assert not all(torch.equal(one.first[name], two.first[name]) for name in one.first)


BAD_INPUT = [
    (["--rules", "lskdd"], "unknown rule 'lskdd'. Did you mean 'lskd'? Valid: all"),
    (["--agents", "pppo"], "arm pppo on task digits: unknown agent 'pppo'. Did you mean 'ppo'?"),
    (["--agents", "ppo", "--calibrators", "gradien"], "arm ppo-gradien on task digits: unknown calibrator"),
    (["--fixed-temperatures", "hot"], "'hot' is no temperature"),
    (["--fixed-temperatures", "0"], "a temperature must be positive and finite, not 0"),
    (["--policies", "mine", "/nowhere"], "arm mine on task digits: /nowhere"),
    (["--arms", "mine", "{rule: lskd, rule_options: {tau: 2, tao: 3}}"], "unknown option of rule 'lskd' 'tao'"),
    (["--arms", "mine", "{rules: lskd}"], "arm mine on task digits: unknown option 'rules'. Did you mean 'rule'?"),
    (["--arms", "mine", "{seed: 3}"], "unknown option 'seed'"),
    (["--arms", "mine", "{epochs: many}"], "arm mine on task digits: "),
    (["--arms", "mine", "lskd"], "are no options by name"),
    (["--arms", "mine", "{rule: "], "is neither JSON nor YAML"),
    (["--arms", "T=4", "{rule: lskd}"], "two arms have the name 'T=4'"),
    (["--arms", "../mine", "{rule: lskd}"], "cannot name a folder"),
    (["--tasks", "a", "{dataset: mnist}"], "unknown data set 'mnist'"),
    (["--tasks", "a", "{preset: nothing}"], "unknown preset 'nothing'"),
    (["--baseline", "lskd"], "unknown arm as baseline: 'lskd'"),
    (["--preset", "digit"], "unknown preset 'digit'. Did you mean 'digits'?"),
    (["--seeds", "0"], "at least 1 seed"),
    (["--only", "digits/T=5"], "unknown task (or TASK/ARM, TASK/ARM/seedN) 'digits/T=5'."),
    (["--jobs", "-1"], "jobs must be at least 0 and at most 1024, not -1"),
    (["--executor", "cluster"], "--executor"),
]


@pytest.mark.parametrize(("options", "message"), BAD_INPUT, ids=[" ".join(options) for options, _ in BAD_INPUT])
def test_bad_input_is_told_before_anything_is_trained(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["compare", "--out", str(out), "--epochs", "2", "--device", "cpu", *options]) == 2
    told = capsys.readouterr().err
    assert message in " ".join(told.split())
    assert told.count("rlkd: error: ") == 1
    assert not out.exists()
