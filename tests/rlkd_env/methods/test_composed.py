"""Methods that are composed: whose terms they have, whose options, and what is refused."""

from __future__ import annotations

import pytest
import torch
from small_detection import pair_with_maps
from small_networks import SmallNetwork, at_temperature, digits_run, frozen_teacher, pair_of, real_outputs

from rlkd_env.errors import UsageError
from rlkd_env.methods import check_method, create_method


@pytest.mark.parametrize(
    ("name", "task_weight", "terms"),
    [
        ("kd+rkd", 0.1, ["kd", "rkd_distance", "rkd_angle"]),
        ("dkd+at", 1.0, ["tckd", "nckd", "at"]),
        ("at+dist", 1.0, ["dist_between", "dist_within", "at"]),
        ("at+rkd", 1.0, ["at", "rkd_distance", "rkd_angle"]),
        ("cross_entropy+sp", 1.0, ["sp"]),
    ],
)
def test_a_composition_has_every_term_once_and_the_weight_of_the_first_that_is_no_addition(
    name: str, task_weight: float, terms: list[str]
) -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    pair, outputs, temperature = pair_of(student, teacher), real_outputs(6, student, teacher), at_temperature(6)
    found = create_method(name, pair)(outputs, temperature)
    expected = {}
    for part in name.split("+"):
        expected |= create_method(part, pair if check_method(part, {}).uses_features else None)(outputs, temperature)
    assert list(found) == ["task", *terms]
    for term in terms:
        torch.testing.assert_close(found[term], expected[term])
    torch.testing.assert_close(found["task"], task_weight * outputs.task_loss)


def test_options_are_those_of_the_parts_with_their_names_before_them() -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    pair, outputs, temperature = pair_of(student, teacher), real_outputs(6, student, teacher), at_temperature(6)
    options = {"kd.kd_weight": "1.8", "rkd.feature_weight": 3.0, "task_weight": 0.5}
    usual, found = (create_method("kd+rkd", pair, **given)(outputs, temperature) for given in ({}, options))
    for term, factor in {"task": 5.0, "kd": 2.0, "rkd_distance": 3.0, "rkd_angle": 3.0}.items():
        torch.testing.assert_close(found[term], factor * usual[term])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kd+", {}, "unknown method ''"),
        ("kd+rdk", {}, "unknown method 'rdk'. Did you mean 'rkd'"),
        ("rkd+rkd", {}, "names a method twice"),
        ("rkd+fpn", {}, "are for different tasks"),
        ("kd+rkd", {"kd_weight": 1.0}, "unknown option of method 'kd.rkd' 'kd_weight'. Did you mean 'kd.kd_weight'"),
        ("kd+rkd", {"rkd.kd_weight": 1.0}, "unknown option"),
        ("kd+rkd", {"rkd.angle_weight": -1.0}, "angle weight must not be negative"),
        ("kd+rkd", {"task_weight": "much"}, "task weight must be a number"),
    ],
)
def test_what_cannot_be_composed_is_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_method(name, options)


def test_compositions_know_what_their_parts_need() -> None:
    assert not check_method("kd+dist", {}).uses_features
    assert check_method("kd+rkd", {}).uses_features
    assert check_method("kd+crd", {}).is_stochastic
    assert check_method("kd+kdsvd", {}).waits_for_device
    assert check_method("kd+fpn", {}).tasks == ("detection",)
    pair = pair_of(SmallNetwork((4, 5)), frozen_teacher())
    assert create_method("kd+at", pair).uses_temperature
    assert not create_method("at+rkd", pair).uses_temperature


def test_a_parts_memory_moves_and_its_own_optimiser_trains() -> None:
    run = digits_run("kd+crd", **{"crd.negatives": 8})
    before = run.state_dict()["method"]["parts.1.student_memory.embeddings"].clone()
    run.step(at_temperature(64))
    assert not torch.equal(run.state_dict()["method"]["parts.1.student_memory.embeddings"], before)
    assert create_method("kd+icd", pair_with_maps(6, 8), **{"icd.heads": 2}).create_optimizer() is not None
