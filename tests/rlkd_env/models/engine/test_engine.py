"""How networks are computed, against plain float32; and the teacher's logits that are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from frozen_networks import SHAPE, with_statistics

from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.models import create_model
from rlkd_env.models.engine import Engine, choose_engine, has_fast_bfloat16
from rlkd_env.models.taps.features import forward_with_features
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.settings import Exploration
from rlkd_env.wrappers.exploration import explore

CPU = torch.device("cpu")
MakeRun = Callable[..., DistillationRun]


def test_freezing_leaves_a_teacher_that_others_use_in_its_memory_format() -> None:
    teacher = create_model("digits_cnn", 10, SHAPE)
    frozen = Engine(CPU, channels_last=True).freeze(teacher, SHAPE)
    assert frozen is not teacher
    assert teacher[0].weight.is_contiguous()
    assert Engine(CPU).freeze(teacher, SHAPE) is teacher


@pytest.mark.parametrize("name", ["cnn8", "resnet8"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_engine_computes_what_plain_float32_does(name: str, channels_last: bool, precision: str) -> None:
    network, images = with_statistics(name), torch.randn(8, *SHAPE)
    expected = network(images)
    expected_gradient = torch.autograd.grad(expected.square().mean(), list(network.parameters()))
    engine = Engine(CPU, precision, channels_last)
    network = engine.prepare(network)
    logits = engine.forward(network, engine.images(images))
    gradient = torch.autograd.grad(logits.square().mean(), list(network.parameters()))
    assert logits.dtype == torch.float32
    tolerance = 1e-4 if precision == "float32" else 0.05  # bfloat16 keeps 8 bits
    assert (logits - expected).norm() <= tolerance * expected.norm()
    for found, wanted in zip(gradient, expected_gradient, strict=True):
        assert (found - wanted).norm() <= 4 * tolerance * wanted.norm() + 1e-6
    feature_logits, features = engine.forward_with_features(network, engine.images(images))
    _, wanted_features = forward_with_features(network, images)
    torch.testing.assert_close(feature_logits, logits)
    assert features.pooled.dtype == torch.float32
    assert (features.pooled - wanted_features.pooled).norm() <= tolerance * wanted_features.pooled.norm()


def test_the_automatic_choice_follows_network_and_hardware() -> None:
    convolutional, connected = create_model("cnn4", 10, SHAPE), create_model("mlp6", 10, SHAPE)
    assert choose_engine(CPU, connected) == Engine(CPU)
    chosen = choose_engine(CPU, convolutional)
    assert chosen.channels_last
    assert (chosen.precision == "bfloat16") == has_fast_bfloat16(CPU)
    assert choose_engine(CPU, convolutional, "float32", "contiguous") == Engine(CPU)
    assert choose_engine(CPU, connected, "bfloat16").precision == "bfloat16"
    with pytest.raises(UsageError, match="Did you mean 'bfloat16'"):
        choose_engine(CPU, connected, "bfloat")
    with pytest.raises(UsageError, match="Did you mean 'channels_last'"):
        choose_engine(CPU, connected, "auto", "channels")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    images = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
    np.savez(path, x_train=images, y_train=np.arange(200) % 10)
    return path


def picture_run(pictures: Path, **settings: object) -> DistillationRun:
    config = {"dataset": "arrays", "data_path": str(pictures), "student": "cnn4", "batch_size": 32, "epochs": 4}
    return build_run(
        RunConfig.from_keywords(**{**config, "device": "cpu", **settings}), teacher=with_statistics("resnet8")
    )


def teacher_logits(run: DistillationRun, steps: int) -> list[torch.Tensor]:
    run.reset(0)
    found = [run.outputs.teacher_logits]
    for _ in range(steps):
        run.step(Temperature.shared(torch.full((32,), 4.0)))
        found.append(run.outputs.teacher_logits)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"augmentation": "none"}, {"augmentation": "crop_flip", "views": 2}, {"augmentation": "crop_flip", "views": 1}],
)
def test_kept_logits_are_those_of_the_teacher(settings: dict, pictures: Path) -> None:
    runs = [picture_run(pictures, precision="float32", teacher_cache_mib=size, **settings) for size in (0, 64)]
    forwards = []
    runs[1].frozen_teacher.register_forward_hook(lambda *_: forwards.append(1))
    for plain, kept in zip(*(teacher_logits(run, 3 * run.steps_per_epoch) for run in runs), strict=True):
        torch.testing.assert_close(kept, plain, rtol=1e-4, atol=1e-4)
    assert len(forwards) == settings.get("views", 1)  # 200 images are one chunk


@pytest.mark.parametrize(
    "settings",
    [{"augmentation": "crop_flip"}, {"epochs": 1}, {"augmentation": "flip", "views": 4}, {"teacher_cache_mib": 0}],
)
def test_nothing_is_kept_where_it_would_not_come_back(settings: dict, pictures: Path) -> None:
    run = picture_run(pictures, **settings)
    forwards = []
    run.frozen_teacher.register_forward_hook(lambda *_: forwards.append(1))
    steps = min(6, run.total_steps)
    teacher_logits(run, steps)
    assert len(forwards) == steps + 1


def test_views_come_back_in_turn_and_differ_between_seeds(pictures: Path) -> None:
    run = picture_run(pictures, augmentation="crop_flip", views=2)
    shown: dict[int, dict[int, torch.Tensor]] = {}
    run.reset(0)
    while not run.finished:
        for index, image in zip(run.batch.indices.tolist(), run.batch.images, strict=True):
            shown.setdefault(index, {})[run.epoch] = image
        run.step(Temperature.shared(torch.full((32,), 4.0)))
    both = [views for views in shown.values() if {0, 1, 2} <= set(views)]
    assert len(both) > 50
    assert all(torch.equal(views[0], views[2]) for views in both)
    assert sum(torch.equal(views[0], views[1]) for views in both) < 10
    seen_before = run.splits.train.take(torch.arange(9), run.create_stream(0).view_seed(0))
    assert not torch.equal(seen_before, run.batch.images[:9])


def test_mixed_images_ask_the_teacher_itself(pictures: Path) -> None:
    run = picture_run(pictures, augmentation="none", epochs=4, precision="float32")
    explore(run, Exploration(first_epoch=2, interval=1, first_share=0.7))
    run.reset(0)
    while run.epoch < 1:
        run.step(Temperature.shared(torch.full((32,), 4.0)))
    assert run.outputs.is_mixed.all()
    with torch.no_grad():
        torch.testing.assert_close(run.outputs.teacher_logits, run.teacher(run.batch.images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("settings", [{"views": 0}, {"views": -1}])
def test_impossible_views_are_refused(settings: dict, pictures: Path) -> None:
    with pytest.raises(UsageError, match="at least 1 view"):
        picture_run(pictures, **settings)
