"""What the teacher says about views that come back, across the runs of a process."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from picture_files import write_pictures_and_teachers

from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.run import DistillationRun
from rlkd_env.training.teacher_cache import KnownViews, View
from rlkd_env.utils.memo import Memo

IMAGES = 78
"""Images for training, of 96."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures_and_teachers(tmp_path_factory.mktemp("files"))


def run_of(files: Path, memo: Memo | None, teacher: int = 0, **settings: object) -> DistillationRun:
    options = {"dataset": "arrays", "data_path": str(files / "pictures.npz"), "student": "cnn4", "batch_size": 16}
    options |= {"epochs": 4, "views": 2, "augmentation": "crop_flip", "device": "cpu"}
    options |= {"teacher": str(files / f"teacher{teacher}.safetensors")}
    return build_run(RunConfig.from_keywords(**(options | settings)), memo=memo)


def trained(run: DistillationRun, seed: int = 0) -> Iterator[torch.Tensor]:
    run.reset(seed)
    while not run.finished:
        yield run.outputs.teacher_logits
        run.step(Temperature.shared(torch.full((16,), 4.0)))
    yield from (weight.detach() for weight in run.student.parameters())


def count_forwards(run: DistillationRun, teacher: torch.nn.Module | None = None) -> list[int]:
    """Return the list of the numbers of images that a run's teacher is going to be asked about."""
    forwards = list[int]()
    asked = run.frozen_teacher if teacher is None else teacher
    asked.register_forward_hook(lambda _, inputs, __: forwards.append(len(inputs[0])))
    return forwards


def test_a_second_run_of_the_same_seed_asks_the_teacher_nothing_and_is_the_same(files: Path) -> None:
    memo = Memo(size=10)
    expected = list(trained(run_of(files, None)))
    first, second = run_of(files, memo), run_of(files, memo, learning_rate=0.02)
    asked = count_forwards(first), count_forwards(second)
    assert all(map(torch.equal, trained(first), expected))
    other_rate, steps = list(trained(second)), second.total_steps
    assert asked == ([IMAGES, IMAGES], [])  # all images are one chunk, and there are two views
    assert all(map(torch.equal, other_rate[:steps], expected))
    assert not all(map(torch.equal, other_rate[steps:], expected[steps:]))


@pytest.mark.parametrize(
    ("change", "seed"), [({"teacher": 1}, 0), ({}, 1), ({"augmentation": "flip"}, 0), ({"normalization": "none"}, 0)]
)
def test_logits_of_other_teachers_seeds_and_images_are_not_taken(files: Path, change: dict, seed: int) -> None:
    memo = Memo(size=10)
    list(trained(run_of(files, memo)))
    expected = trained(run_of(files, None, **change), seed)
    assert all(map(torch.equal, trained(run_of(files, memo, **change), seed), expected))


def test_the_oldest_views_go_first_where_memory_ends() -> None:
    known, views = KnownViews(size=2 * 4 * 10), [View(torch.full((10, 1), float(number))) for number in range(3)]
    for seed, view in enumerate(views):
        known.add(seed, view)
    assert copy.deepcopy(known).get(2) is None  # a copy of a run would take as much memory again
    assert known.get(0) is None
    assert known.get(1) is views[1]
    assert known.get(2) is views[2]


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("views", [1, 2])
def test_an_update_hears_of_the_view_that_is_shown(files: Path, views: int, captured: bool) -> None:
    """Recorded updates too, for which a view's logits are an input: work that is replayed cannot look them up."""
    run = run_of(files, None, views=views, precision="float32", memory_format="contiguous")
    run.task.engine = replace(run.task.engine, captured=captured)
    run.reset(0)
    shown = set()
    while not run.finished:
        shown.add(int(run.update.outputs.progress * run.recipe.epochs) % views)
        torch.testing.assert_close(run.outputs.teacher_logits, run.teacher(run.batch.images), rtol=1e-4, atol=1e-5)
        run.step(Temperature.shared(torch.full((16,), 4.0)))
    assert len(shown) == views
    assert (run.update.why_plain is None) == captured


@pytest.mark.parametrize("captured", [False, True])
def test_second_views_come_back_too(files: Path, captured: bool) -> None:
    run = run_of(files, Memo(size=10), method="crld", precision="float32", memory_format="contiguous", epochs=5)
    run.task.engine = replace(run.task.engine, captured=captured)
    run.reset(0)
    asked = count_forwards(run)
    while not run.finished:
        expected = run.teacher(run.batch.second_images)
        torch.testing.assert_close(run.outputs.second_teacher_logits, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(run.outputs.teacher_logits, expected)
        run.step(Temperature.shared(torch.full((16,), 4.0)))
    assert asked == [IMAGES] * 2  # the other two were asked for before


def test_second_views_of_plain_images_differ_from_seed_to_seed(files: Path) -> None:
    run = run_of(files, None, method="crld", precision="float32", memory_format="contiguous", augmentation="none")
    for seed in (0, 1):
        run.reset(seed)
        expected = run.teacher(run.batch.second_images)
        torch.testing.assert_close(run.outputs.second_teacher_logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["at", "srrl", "ofd", "crd", "adain", "dkd+rkd"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_features_that_are_known_train_the_same_student(files: Path, method: str, precision: str) -> None:
    memo = Memo(size=10)
    settings = {"method": method, "precision": precision}
    expected = list(trained(run_of(files, None, teacher_cache_mib=0, **settings)))
    first, second = run_of(files, memo, **settings), run_of(files, memo, learning_rate=0.02, **settings)
    assert second.teacher is first.teacher
    asked = count_forwards(first, first.teacher)
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if precision == "float32" else {"rtol": 0.1, "atol": 0.05}
    for one, other in zip(trained(first), expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)
    assert asked.count(IMAGES) == 2
    list(trained(second))
    assert asked.count(IMAGES) == 2
    assert asked.count(16) == (2 * first.total_steps if method == "adain" else 0)  # about the student's features


def test_features_that_do_not_fit_are_asked_for_at_every_update(files: Path, capsys: pytest.CaptureFixture) -> None:
    run = run_of(files, None, method="at", precision="float32")
    run.teacher_cache_bytes = 10_000  # the logits of both views would fit
    forwards = count_forwards(run, run.teacher)
    list(trained(run))
    assert forwards.count(16) == run.total_steps + 1  # and the batch that waits
    assert forwards.count(IMAGES) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "--teacher-cache-mib" in line]
    assert len(told) == 1
    assert told[0].endswith("(0 MiB): it is asked again")
