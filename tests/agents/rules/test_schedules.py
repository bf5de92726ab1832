"""Rules that follow the run's progress."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.learned.loading import load_policy
from agents.rules.create import create_rule
from agents.rules.schedules import DTS, Anneal
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs


def at(progress: float, scale: float = 1.0, num_classes: int = 7) -> InstanceOutputs:
    draws = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(12, num_classes, generator=draws) for _ in range(2))
    return InstanceOutputs(student, scale * teacher, torch.zeros(12, dtype=torch.int64), progress)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({"shape": "linear"}, [8.0, 4.0, 2.0, 1.0, 0.5]),
        ({"shape": "cosine"}, [2 ** (1 + 2 * math.cos(math.pi * over / 4)) for over in range(5)]),
        ({}, [8.0, 4.0, 2.0, 1.0, 0.5]),
    ],
)
def test_annealing_goes_geometrically_from_first_to_last(shape: dict[str, str], expected: list[float]) -> None:
    rule = Anneal(8.0, 0.5, **shape, own_spread=0.0)
    found = [float(rule(at(progress)).student[0]) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert found == pytest.approx(expected)


def test_an_unknown_shape_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"rule 'anneal': unknown shape 'cosin'.*Did you mean 'cosine'"):
        create_rule("anneal", {"shape": "cosin"})


def test_regions_have_ends_of_their_own() -> None:
    given = at(0.0), replace(at(0.0), further_loss=torch.zeros(12))
    rule = Anneal(8, 2, regions=(4, 1))
    assert [float(rule(outputs).student[0]) for outputs in given] == [8.0, 4.0]
    assert create_rule("anneal", {"regions": "4:0.5s"}).schedule.regions == ("4", "0.5s")
    for wrong in ((1,), "1", "1:2:3", 5):
        with pytest.raises(UsageError, match="temperatures of regions must be two"):
            Anneal(regions=wrong)
    for wrong in ((1, 0), "1:cold"):
        with pytest.raises(UsageError, match=r"must be positive|is no temperature"):
            Anneal(regions=wrong)


def test_annealing_is_in_units_of_the_batchs_teacher() -> None:
    teacher = at(0.0).teacher_logits
    unit = float(teacher.double().std(dim=1, correction=0).mean())
    rule = Anneal("2s", "0.5s", own_spread=0.0)
    assert rule(at(0.5)).student.tolist() == pytest.approx([unit] * 12)
    assert rule(at(0.5, scale=10.0)).student.tolist() == pytest.approx([10 * unit] * 12)
    half = Anneal("2s", 0.5, own_spread=0.0)  # from a relative to an absolute temperature
    assert float(half(at(0.5, scale=4.0)).student[0]) == pytest.approx(math.sqrt(2 * 4 * unit * 0.5))


def test_annealing_takes_the_unit_of_every_run_apart() -> None:
    one, other = at(0.3), at(0.3, scale=5.0)
    joined = Anneal()(InstanceOutputs.join([one, other]))
    for name in ("student", "teacher", "factor"):
        expected = torch.cat([getattr(Anneal()(outputs), name) for outputs in (one, other)])
        torch.testing.assert_close(getattr(joined, name), expected)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (0.05, 0.25), (0.2, 1.0), (0.9, 1.0)])
def test_temperatures_follow_the_logits_own_spread_with_a_power_that_sets_in(progress: float, share: float) -> None:
    batch = at(progress)
    student, teacher = (logits.double().numpy() for logits in (batch.student_logits, batch.teacher_logits))
    unit = teacher.std(axis=1).mean()
    shared, found = 3 * unit * (0.35 / 3) ** progress, Anneal(own_spread=0.6)(batch)
    for temperature, logits in ((found.student, student), (found.teacher, teacher)):
        np.testing.assert_allclose(temperature, shared * (logits.std(axis=1) / unit) ** (0.6 * share), rtol=1e-5)
    if share:
        np.testing.assert_allclose(found.factor, np.full(12, shared**2), rtol=1e-5)
    else:
        assert found.is_shared


def test_the_whole_power_is_lskd_with_a_falling_base_temperature() -> None:
    batch, lskd = at(0.5), create_rule("lskd")
    found = Anneal("2s", "2s", own_spread=1.0)(batch)
    torch.testing.assert_close(found.student, lskd(batch).student)
    torch.testing.assert_close(found.teacher, lskd(batch).teacher)


def test_a_student_without_an_opinion_has_a_temperature_that_is_not_zero() -> None:
    batch = at(1.0)
    silent = batch.with_student_logits(torch.zeros_like(batch.student_logits))
    shared = Anneal(own_spread=0.0)(silent).student
    torch.testing.assert_close(Anneal(own_spread=0.5)(silent).student, shared * math.sqrt(0.05))


def test_a_power_beyond_0_to_1_is_refused() -> None:
    for wrong in (-0.1, 1.1, math.nan, "half", True):
        with pytest.raises(UsageError, match="own_spread must be a number from 0 to 1"):
            create_rule("anneal", {"own_spread": wrong})


def test_a_detectors_regions_have_one_temperature_unless_others_are_given() -> None:
    for progress in (0.0, 0.5, 1.0):
        regions = replace(at(progress), further_loss=torch.zeros(12))
        assert Anneal()(regions).student.tolist() == pytest.approx([0.5] * 12)
        assert Anneal()(InstanceOutputs.join([regions, regions])).student.tolist() == pytest.approx([0.5] * 24)
    regions = replace(at(0.5), further_loss=torch.zeros(12))
    falling = Anneal(regions="2:0.5")
    assert falling(regions).student.tolist() == pytest.approx([1.0] * 12)
    assert falling(InstanceOutputs.join([regions, regions])).student.tolist() == pytest.approx([1.0] * 24)
    assert float(Anneal(first=8)(replace(regions, progress=0.0)).student[0]) == 8.0


def test_a_teacher_without_an_opinion_gives_no_temperature_of_zero() -> None:
    assert (Anneal()(at(1.0, scale=0.0)).student > 0).all()


@pytest.mark.parametrize("options", [{"first": 0}, {"last": "-1s"}, {"first": "hot"}, {"last": math.inf}])
def test_impossible_temperatures_are_refused(options: dict[str, float | str]) -> None:
    with pytest.raises(UsageError, match="temperature"):
        create_rule("anneal", options)


def test_short_runs_start_colder_unless_a_start_is_given() -> None:
    def start(rule: Anneal, epochs: float, updates_per_class: float = math.inf, **others: object) -> float:
        outputs = at(0.0)
        updates = updates_per_class * outputs.num_classes
        return float(rule(replace(outputs, epochs=epochs, updates=updates, **others)).student[0])

    usual = start(Anneal(), math.inf)
    found = [start(Anneal(), epochs) / usual for epochs in (20, 10, 2.5, 1, 0.1)]
    assert found == pytest.approx([1.0, 1.0, 0.5, math.sqrt(0.1), math.sqrt(0.1)])
    found = [start(Anneal(), 20, updates) / usual for updates in (50, 12, 3, 1, 0.1)]
    assert found == pytest.approx([1.0, 1.0, 0.5, math.sqrt(1 / 12), math.sqrt(1 / 12)])
    assert start(Anneal(), 2.5, 3) / usual == pytest.approx(0.25)
    assert start(Anneal(8), 1, 3) == pytest.approx(8.0)
    assert start(Anneal(8, cold_start=True), 2.5, 3) == pytest.approx(2.0)
    assert start(Anneal(cold_start=False), 1, 3) == usual
    short = replace(at(1.0), epochs=1.0)
    assert torch.equal(Anneal()(short).student, Anneal()(at(1.0)).student)  # where they end is the same
    regions = [start(Anneal(), epochs, further_loss=torch.zeros(12)) for epochs in (1, 100)]
    assert regions[0] == regions[1]
    with pytest.raises(UsageError, match="cold_start"):
        Anneal(cold_start="often")


def test_dts_falls_to_its_least_temperature_and_stays() -> None:
    found = [float(DTS()(at(progress)).student[0]) for progress in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx([8.0, 8 * (1 + math.sqrt(0.5)) / 2, 4.0, 4.0])


def test_a_rule_is_a_policy_for_any_loop() -> None:
    policy, batch = load_policy("anneal"), at(0.25)
    given = (batch.student_logits, batch.teacher_logits, batch.labels)
    torch.testing.assert_close(policy.choose(*given, progress=0.25).student, Anneal()(batch).student)
    short = Anneal()(replace(batch, epochs=3)).student
    assert torch.equal(policy.choose(*given, progress=0.25, epochs=3).student, short)
    assert (short < Anneal()(batch).student).all()
    with pytest.raises(ValueError, match=r"differ between teacher and student: use choose\(\)"):
        policy.temperatures(*given, progress=0.25)
    separate = load_policy("lskd").choose(*given)
    assert not separate.is_shared
    with pytest.raises(UsageError, match="drawn at random"):
        load_policy("random")
