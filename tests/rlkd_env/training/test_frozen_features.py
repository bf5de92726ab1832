"""Features of a network in place of images, and runs that distil from logits stored with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rlkd_env.data import DataConfig, create_source
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.models import create_model
from rlkd_env.models.storage import load_network, save_network
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.training import FrozenFeatures, FrozenFeaturesConfig, StoredTeacher

CLASSES = 6


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 480 random images of six classes, a network for them, and a cache of its own."""
    monkeypatch.setenv("RLKD_CACHE", str(tmp_path / "cache"))
    draws, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 480), ("test", 60)):
        labels = np.arange(count) % CLASSES
        pixels = draws.integers(0, 200, (count, 8, 8, 3)) + 9 * labels[:, None, None, None]
        arrays |= {f"x_{part}": pixels.astype(np.uint8), f"y_{part}": labels}
    np.savez(tmp_path / "images.npz", **arrays)
    torch.manual_seed(0)
    network = create_model("resnet8", CLASSES, (3, 8, 8))
    save_network(tmp_path / "teacher.safetensors", network.state_dict(), "resnet8", CLASSES, (3, 8, 8))
    return tmp_path


def source(folder: Path, **features: object) -> FrozenFeatures:
    data = DataConfig.from_keywords(dataset="arrays", data_path=str(folder / "images.npz"), train_images=240)
    chosen = {"network": "teacher.safetensors", "stage": 1, "components": 20, **features}
    return FrozenFeatures(data, FrozenFeaturesConfig.from_keywords(chosen))


def test_features_are_whitened_and_logits_those_of_the_network(folder: Path) -> None:
    images, num_classes = source(folder).training_images()
    values = images.images.flatten(1).double()
    assert (values.shape, num_classes) == ((480, 20), CLASSES)
    torch.testing.assert_close(torch.cov(values.T), torch.eye(20, dtype=torch.float64), atol=1e-3, rtol=0)
    network = load_network(folder / "teacher.safetensors", CLASSES, (3, 8, 8))
    plain = create_source(source(folder).config).training_images()[0].images
    with torch.no_grad():
        torch.testing.assert_close(images.teacher_logits, network(plain), atol=1e-4, rtol=1e-4)


def test_features_are_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = source(folder).test_set()
    monkeypatch.setattr("rlkd_env.training.frozen_features.extract_features", None)
    again = source(folder, noise=0.1).test_set()  # neither noise nor classes need others
    assert torch.equal(first.pixels, again.pixels)
    with pytest.raises(TypeError):
        source(folder, stage=2).test_set()
    (path,) = (folder / "cache").glob("features-arrays-*.safetensors")
    path.write_bytes(b"damaged")
    with pytest.raises(TypeError):
        source(folder).test_set()


def test_classes_are_drawn_and_counted_among_themselves(folder: Path) -> None:
    whole, part = source(folder), source(folder, num_classes=3, class_seed=1)
    (images, num_classes), everything = part.training_images(), whole.training_images()[0]
    assert (num_classes, len(images), len(part.test_set())) == (3, 240, 30)
    kept = torch.isin(everything.labels, part._classes)
    assert torch.equal(part._classes[images.labels], everything.labels[kept])
    assert torch.equal(images.teacher_logits, everything.teacher_logits[kept][:, part._classes])
    others = source(folder, num_classes=3, class_seed=2)
    assert not torch.equal(others._classes, part._classes)


def test_the_pixels_themselves_have_no_logits(folder: Path) -> None:
    images, _ = source(folder, network=None, stage=0).training_images()
    assert images.teacher_logits is None
    assert images.image_shape == (1, 1, 20)


def fixed(outputs: object) -> Temperature:
    return Temperature.shared(torch.full(outputs.labels.shape, 3.0))


@pytest.mark.parametrize("mode", ["stacked", "serial"])
def test_runs_distil_from_the_stored_logits(folder: Path, mode: str) -> None:
    config = RunConfig.from_keywords(dataset="arrays", student="mlp16", epochs=2, validation_images=30, probe_size=30)
    data = source(folder)
    run = build_run(config, data)
    assert isinstance(run.teacher, StoredTeacher)
    assert run.teacher_deviation == pytest.approx(
        float(run.splits.train.teacher_logits.std(-1, correction=0).mean()), rel=1e-5
    )
    runs = create_parallel_runs(run, 3, mode)
    runs.reset([4, 5, 4])
    outputs, size = runs.outputs, runs.batch_size
    assert torch.equal(outputs.teacher_logits, run.splits.train.teacher_logits[outputs.indices])
    assert torch.equal(outputs.indices[:size], outputs.indices[2 * size :])
    assert not torch.equal(outputs.indices[:size], outputs.indices[size : 2 * size])
    runs.advance(fixed)
    loss = runs.evaluate(run.probe).loss
    assert loss[0] == pytest.approx(float(loss[2]), abs=1e-5)
    run.reset(4)
    run.advance(fixed)
    assert float(run.task.evaluate(run.student, run.probe).loss) == pytest.approx(float(loss[0]), abs=1e-4)


def test_what_needs_more_than_logits_is_told(folder: Path) -> None:
    config = RunConfig.from_keywords(dataset="arrays", student="mlp16", method="pkt")
    with pytest.raises(UsageError, match="only the teacher's logits come with"):
        build_run(config, source(folder))
    config = RunConfig.from_keywords(dataset="arrays", student="mlp16", method="mlkd")
    with pytest.raises(UsageError, match="here there is one, as the teacher's logits are stored with the images"):
        build_run(config, source(folder))
    with pytest.raises(UsageError, match="stored with the training images"):
        StoredTeacher()(torch.zeros(1, 1, 1, 20))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"stage": 9}, "has 3 stages, not 9"),
        ({"components": 4000}, "4000 components are more than the 256 features of stage 1"),
        ({"num_classes": 7}, "6 classes, of which 2 or more can be drawn, not 7"),
        ({"network": "none.pth"}, "does not exist"),
    ],
)
def test_wrong_features_are_told(folder: Path, features: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        source(folder, **features).training_images()


def test_features_of_data_without_a_plain_training_set_are_refused() -> None:
    with pytest.raises(UsageError, match="in place of the images of digits"):
        FrozenFeatures(DataConfig(), FrozenFeaturesConfig())
