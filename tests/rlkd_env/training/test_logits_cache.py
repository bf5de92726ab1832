"""The teacher's logits on views that come back, across the runs of a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rlkd_env.instances.temperature import Temperature
from rlkd_env.models import create_model
from rlkd_env.models.storage import save_network
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.run import DistillationRun
from rlkd_env.training.logits_cache import KnownLogits
from rlkd_env.utils.memo import Memo

SHAPE, MIB = (3, 8, 8), 2**20


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    images = np.random.default_rng(0).integers(0, 256, (96, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "pictures.npz", x_train=images, y_train=np.arange(96) % 4)
    for seed in (0, 1):
        torch.manual_seed(seed)
        weights = create_model("cnn4", 4, SHAPE).state_dict()
        save_network(folder / f"teacher{seed}.safetensors", weights, "cnn4", 4, SHAPE)
    return folder


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


def count_forwards(run: DistillationRun) -> list[int]:
    forwards = list[int]()
    run.frozen_teacher.register_forward_hook(lambda *_: forwards.append(1))
    return forwards


def test_a_second_run_of_the_same_seed_asks_the_teacher_nothing_and_is_the_same(files: Path) -> None:
    memo = Memo(size=10)
    expected = list(trained(run_of(files, None)))
    first, second = run_of(files, memo), run_of(files, memo, learning_rate=0.02)
    asked = count_forwards(first), count_forwards(second)
    assert all(map(torch.equal, trained(first), expected))
    other_rate, steps = list(trained(second)), second.total_steps
    assert [len(forwards) for forwards in asked] == [2, 0]  # 96 images are one chunk, and there are two views
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
    known, views = KnownLogits(size=2 * 4 * 10), [torch.full((10,), float(number)) for number in range(3)]
    for seed, logits in enumerate(views):
        known.add(seed, logits)
    assert known.get(0) is None
    assert known.get(1) is views[1]
    assert known.get(2) is views[2]
