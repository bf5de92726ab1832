"""Teachers: trained, cached, saved and loaded."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file
from torch import nn

from rlkd_env.data import DATASETS
from rlkd_env.errors import UsageError
from rlkd_env.models import MODELS, create_model
from rlkd_env.models.storage import load_network, save_network
from rlkd_env.runs.build import build_run, teacher_logit_deviation
from rlkd_env.runs.config import RunConfig
from rlkd_env.tasks import Classification, create_task
from rlkd_env.training.teacher import TeacherRecipe, cached_teacher, load_teacher, locked, train_teacher

SPLITS = DATASETS["digits"]().splits()
QUICK = TeacherRecipe(model="mlp16", epochs=2)


def test_a_trained_teacher_knows_the_digits(digits_teacher: nn.Module) -> None:
    test = DATASETS["digits"]().test_set()
    with torch.no_grad():
        predicted = digits_teacher(test.images).argmax(1)
    assert (predicted == test.labels).float().mean() > 0.96  # 97.3 % with torch 2.15


def test_training_is_repeatable_and_reports_its_epochs() -> None:
    reported: list[int] = []
    first = train_teacher(SPLITS, QUICK, lambda epoch, epochs, loss: reported.append((epoch, epochs)))
    second = train_teacher(SPLITS, QUICK)
    assert reported == [(1, 2), (2, 2)]
    assert torch.equal(first[1].weight, second[1].weight)
    assert not first.training


def test_the_cache_trains_once_and_mends_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLKD_CACHE", str(tmp_path))
    trained: list[int] = []
    first = cached_teacher(SPLITS, QUICK, lambda epoch, epochs, loss: trained.append(epoch))
    again = cached_teacher(SPLITS, QUICK, lambda epoch, epochs, loss: trained.append(epoch))
    assert trained == [1, 2]
    assert torch.equal(first[1].weight, again[1].weight)
    (path,) = tmp_path.glob("teacher-mlp16-*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    mended = cached_teacher(SPLITS, QUICK, lambda epoch, epochs, loss: trained.append(epoch))
    assert trained == [1, 2, 1, 2]
    assert torch.equal(first[1].weight, mended[1].weight)


@pytest.mark.parametrize("dataset", ["digits", pytest.param("digits_detection", marks=pytest.mark.slow)])
def test_the_teachers_of_the_embedded_data_come_with_the_package(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder's README says how they were made; they are found by data and recipe."""
    monkeypatch.setenv("RLKD_CACHE", str(tmp_path))
    source = DATASETS[dataset]()
    recipe = TeacherRecipe.from_keywords(source.teacher_recipe, model=source.default_teacher)
    trained: list[int] = []
    teacher = cached_teacher(source.splits(), recipe, lambda epoch, epochs, loss: trained.append(epoch), source.task)
    assert not trained
    assert not list(tmp_path.iterdir())
    assert not capsys.readouterr().err  # such as that a file has no checksum
    accuracy = create_task(source.task).evaluate(teacher, source.splits().validation).accuracy
    assert accuracy > {"digits": 0.94, "digits_detection": 0.4}[dataset]


@pytest.mark.parametrize("name", ["teacher.safetensors", "student.safetensors", "model.safetensors"])
def test_a_teachers_file_in_a_folder_has_one_of_several_names(name: str, tmp_path: Path) -> None:
    network = create_model("mlp16", 10, (1, 8, 8))
    save_network(tmp_path / name, network.state_dict(), "mlp16", 10, (1, 8, 8))
    assert torch.equal(load_teacher(tmp_path, SPLITS)[1].weight, network[1].weight)


def test_the_only_file_of_weights_in_a_folder_is_the_teachers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = create_model("mlp16", 10, (1, 8, 8))
    torch.save({"state_dict": network.state_dict()}, tmp_path / "last.ckpt")
    (tmp_path / "config.json").write_text("{}")
    assert torch.equal(load_teacher(tmp_path, SPLITS, "mlp16")[1].weight, network[1].weight)
    assert "is last.ckpt, its only file of weights" in capsys.readouterr().err
    torch.save({}, tmp_path / "best.ckpt")
    with pytest.raises(UsageError, match=r"it holds best.ckpt, last.ckpt: name one of them"):
        load_teacher(tmp_path, SPLITS, "mlp16")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="should hold a teacher's weights, but it holds none"):
        load_teacher(tmp_path / "empty", SPLITS)


def test_a_saved_network_is_loaded_from_its_file_or_folder(tmp_path: Path) -> None:
    network = create_model("mlp16", 10, (1, 8, 8))
    save_network(tmp_path / "teacher.safetensors", network.state_dict(), "mlp16", 10, (1, 8, 8))
    for path in (tmp_path, tmp_path / "teacher.safetensors"):
        loaded = load_teacher(path, SPLITS)
        assert torch.equal(loaded[1].weight, network[1].weight)
    run = build_run(RunConfig.from_keywords(teacher=str(tmp_path), device="cpu"))
    assert torch.equal(run.teacher[1].weight, network[1].weight)


def test_files_that_are_no_fitting_network_are_refused(tmp_path: Path) -> None:
    weights = create_model("mlp16", 10, (1, 8, 8)).state_dict()
    good = tmp_path / "good.safetensors"
    save_network(good, weights, "mlp16", 10, (1, 8, 8))
    with pytest.raises(UsageError, match="knows 10 classes, but the data has 100"):
        load_network(good, 100, (1, 8, 8))
    with pytest.raises(UsageError, match="images of shape"):
        load_network(good, 10, (3, 32, 32))
    with pytest.raises(UsageError, match="does not exist"):
        load_network(tmp_path / "missing.safetensors", 10, (1, 8, 8))
    (tmp_path / "damaged.safetensors").write_bytes(good.read_bytes()[:-50])
    with pytest.raises(UsageError, match="damaged"):
        load_network(tmp_path / "damaged.safetensors", 10, (1, 8, 8))
    save_file(weights, tmp_path / "bare.safetensors")
    with pytest.raises(UsageError, match="not saved by rlkd"):
        load_network(tmp_path / "bare.safetensors", 10, (1, 8, 8))
    for model, message in (("mlp12", "shape"), ("digits_cnn", "holds another network"), ("mlp99", "unknown network")):
        save_network(tmp_path / "other.safetensors", weights, model, 10, (1, 8, 8))
        with pytest.raises(UsageError, match=message):
            load_network(tmp_path / "other.safetensors", 10, (1, 8, 8))


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"learning_rate": 0.0}])
def test_impossible_recipes_are_refused(settings: dict) -> None:
    with pytest.raises(UsageError):
        TeacherRecipe(model="mlp16", **settings)


def test_logit_deviation_is_the_mean_of_the_instances_deviations(digits_teacher: nn.Module) -> None:
    with torch.no_grad():
        logits = digits_teacher(SPLITS.train.images)
    expected = ((logits - logits.mean(1, keepdim=True)) ** 2).mean(1).sqrt().mean()
    assert teacher_logit_deviation(digits_teacher, SPLITS, Classification()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("name", "parameters"), [("digits_cnn", 151_306), ("mlp12", 910), ("mlp8", 610)])
def test_networks_have_the_documented_size(name: str, parameters: int) -> None:
    network = create_model(name, 10, (1, 8, 8))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert name in MODELS


def test_waiting_for_another_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, has_it = tmp_path / "teacher.safetensors", threading.Event()

    def train() -> None:
        with FileLock(path.with_suffix(".lock")):
            has_it.set()
            time.sleep(0.3)

    threading.Thread(target=train).start()
    has_it.wait()
    with locked(path, "teacher"):
        assert "another process makes the teacher" in capsys.readouterr().err
