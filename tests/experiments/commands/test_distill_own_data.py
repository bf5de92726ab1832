"""``rlkd`` on data, networks and methods of the user's choice."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from by_ppo import by_ppo
from safetensors.torch import load_file

from experiments.cli import main
from rlkd_env.methods import METHODS
from rlkd_env.models import create_model, load_student

needs_real_data = pytest.mark.skipif("RLKD_DATA" not in os.environ, reason="RLKD_DATA names no folder of real data")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares whose brightness, noisily, is their class."""
    generator = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 400), ("test", 80)):
        labels = np.arange(count) % 4
        brightness = 40 + 50 * labels[:, None, None, None] + 30 * generator.normal(size=(count, 8, 8, 3))
        arrays |= {f"x_{part}": brightness.clip(0, 255).astype(np.uint8), f"y_{part}": labels}
    arrays["x_test"][:3] = arrays["x_train"][:3]  # three images stand in both parts
    path = tmp_path_factory.mktemp("data") / "squares.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def teacher(data: Path) -> Path:
    out = data.parent / "teacher"
    arguments = ["--dataset", "arrays", "--data-path", str(data), "--model", "cnn8", "--epochs", "5"]
    assert main(["teacher", *arguments, "--device", "cpu", "--no-progress", "--out", str(out)]) == 0
    return out


Distill = Callable[..., int]


@pytest.fixture
def distill(data: Path, teacher: Path) -> Distill:
    def run(out: Path, *options: str) -> int:
        defaults = ["--dataset", "arrays", "--data-path", str(data), "--teacher", str(teacher), "--student", "cnn4"]
        small = ["--epochs", "3", "--warmup-epochs", "1", "--batch-size", "32", "--no-progress", "--device", "cpu"]
        return main(["distill", *defaults, *small, "--out", str(out), *by_ppo(*options)])

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [name for name, kind in METHODS.items() if "classification" in kind.tasks and name != "cross_entropy"]
)
def test_every_method_distils_with_an_agent(method: str, distill: Distill, tmp_path: Path) -> None:
    chosen = {"crd": ("negatives", "64"), "mlkd": ("kd_weight", "0.01")}  # for four classes its terms are large
    options = ["--method-options", *chosen[method]] if method in chosen else []
    if METHODS[method].uses_two_heads:
        options += ["--student", "deit64_patch2", "--epochs", "6", "--optimizer", "adam", "--learning-rate", "0.001"]
    assert distill(tmp_path, "--method", method, *options) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["method"] == method
    assert summary["student_last_test_accuracy"] > 0.35  # chance is 0.25
    assert not summary["diverged"]
    assert load_student(tmp_path / "student_last.safetensors")(torch.rand(2, 3, 8, 8)).shape == (2, 4)


def test_the_summary_tells_the_parts_and_the_images_in_both(
    distill: Distill, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(tmp_path, "--rule", "fixed", "--train-images", "200") == 0
    told = json.loads((tmp_path / "summary.json").read_text())["data"]
    assert told["train"] == 200
    assert told["probe"] == 40
    assert told["validation"] == 40
    assert told["teacher_train"] == 320
    assert told["test_duplicates"] in (1, 2, 3)  # as many of the three as train the teacher
    assert f"{told['test_duplicates']} of the 80 test images are training images too" in capsys.readouterr().out
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["train_images"], config["split_seed"], config["dataset"]) == (200, 0, "arrays")


@pytest.mark.slow
def test_crd_with_random_views_and_a_sequence_resumes_bit_for_bit(
    distill: Distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--method", "crd", "--method-options", "negatives", "64", "--augmentation", "crop_flip", "--no-explore"]
    options += ["--sequence-phases", "3", "--epochs", "6", "--checkpoint-seconds", "0"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert distill(whole, *options) == 0
    from experiments.session import checkpoints

    saved = checkpoints.save_checkpoint

    def save_and_stop(folder: Path, state: dict) -> None:
        saved(folder, state)
        if state["run"]["step_count"] >= 37:
            raise OSError("pulled the plug")

    monkeypatch.setattr(checkpoints, "save_checkpoint", save_and_stop)
    assert distill(stopped, *options) == 2
    monkeypatch.setattr(checkpoints, "save_checkpoint", saved)
    assert main(["distill", "--resume", "--out", str(stopped), "--no-progress", "--device", "cpu"]) == 0
    assert (stopped / "student_last.safetensors").read_bytes() == (whole / "student_last.safetensors").read_bytes()


def test_the_user_brings_a_network_by_its_path(
    distill: Distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "def tiny(num_classes, image_shape, width=4):\n"
        "    body = nn.Sequential(nn.Conv2d(image_shape[0], width, 3, 2), nn.ReLU(), nn.Flatten())\n"
        "    return nn.Sequential(body, nn.Linear(width * 9, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ["--student", "my_networks:tiny", "--student-options", "width", "6", "stages", "0.1", "classifier", "1"]
    assert distill(tmp_path / "run", "--rule", "fixed", "--method", "sp", *options) == 0
    assert load_file(tmp_path / "run" / "student.safetensors")["1.weight"].shape == (4, 54)


@pytest.mark.slow
def test_weights_of_the_field_teach(distill: Distill, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "resnet8.pth"
    torch.save({"model": create_model("resnet8", 4, (3, 8, 8)).state_dict(), "epoch": 3}, weights)
    assert distill(tmp_path / "run", "--teacher", str(weights), "--rule", "fixed") == 2
    assert "--teacher-model" in capsys.readouterr().err
    assert distill(tmp_path / "run", "--teacher", str(weights), "--teacher-model", "wrn_16_1", "--rule", "fixed") == 2
    told = capsys.readouterr().err
    assert "layer1.0.conv1.weight" in told
    assert "another architecture" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert distill(tmp_path / "run", "--teacher", str(weights), "--teacher-model", "resnet8", "--rule", "fixed") == 2
    assert "hardly more than chance" in capsys.readouterr().err
    known = ["--teacher", str(weights), "--teacher-model", "resnet8", "--rule", "fixed", "--force"]
    assert distill(tmp_path / "run", *known) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--teacher", "auto"], "make one with `rlkd teacher --dataset arrays --model"),
        (["--student", "mlp12", "--method", "vid"], "student"),
        (["--student", "mlp12", "--method", "sp"], "student"),
        (["--student", "cnn5"], "Did you mean 'cnn8'"),
        (["--student", "nowhere:make"], "cannot be imported"),
        (["--student-options", "width", "3"], "no option 'width'"),
        (["--method", "crd", "--method-options", "negative", "3"], "Did you mean 'negatives'"),
        (["--data-path", "nowhere.npz"], "there is no file nowhere.npz"),
        (["--dataset", "cifar100", "--data-path", "nowhere"], "--download"),
        (["--dataset", "image_folder", "--data-path", "nowhere"], "there is no folder nowhere"),
        (["--augmentation", "resized_crop"], "needs image files"),
        (["--train-images", "4000"], "cannot have 4000 images"),
        (["--sequence-phases", "3", "--explore-first-epoch", "2"], "switch one of them off"),
        (["--preset", "cifar100/resnet56-resnet20/nothing"], "unknown preset"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    options: list[str], message: str, distill: Distill, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(tmp_path / "run", *options) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.real_data
@needs_real_data
def test_fashion_mnist_is_distilled_from_its_preset(tmp_path: Path) -> None:
    small = ["--teacher-images", "4000", "--epochs", "6", "--learning-rate", "0.05", "--no-progress", "--device", "cpu"]
    assert main(["teacher", "--preset", "fashion_mnist", "--model", "cnn8", *small, "--out", str(tmp_path / "t")]) == 0
    assert json.loads((tmp_path / "t" / "teacher.json").read_text())["test_accuracy"] > 0.6
    options = ["--train-images", "1000", "--epochs", "6", "--warmup-epochs", "1", "--teacher-model", "cnn8"]
    options += ["--teacher-images", "4000", "--student", "cnn8", "--validation-images", "500", "--no-progress"]
    arguments = ["--preset", "fashion_mnist/dkd", "--teacher", str(tmp_path / "t"), "--out", str(tmp_path / "run")]
    assert main(["distill", "--agent", "ppo", *arguments, *options, "--device", "cpu"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["data"]["train"] == 1000
    assert summary["student_last_test_accuracy"] > 0.4


@pytest.mark.slow
@pytest.mark.real_data
@needs_real_data
def test_the_preset_of_cifar100_starts_with_weights_of_the_field(tmp_path: Path) -> None:
    with np.load(Path(os.environ["RLKD_DATA"]) / "cifar100.npz") as file:
        few = {name: file[name][:size] for name, size in (("x_train", 5000), ("y_train", 5000), ("x_test", 200))}
        np.savez(tmp_path / "cifar100.npz", **few, y_test=file["y_test"][:200])
    weights = tmp_path / "resnet56.pth"
    teacher = create_model("resnet56", 100, (3, 32, 32))
    for _ in range(20):  # its statistics have to be those of images, or its logits are in the thousands
        teacher(torch.randn(32, 3, 32, 32))
    torch.save({"model": teacher.state_dict()}, weights)
    options = ["--train-images", "256", "--validation-images", "128", "--probe-size", "64", "--epochs", "2"]
    preset = ["--preset", "cifar100/resnet56-resnet20/kd", "--teacher", str(weights), "--warmup-epochs", "1", "--force"]
    arguments = [*preset, *options, "--agent", "ppo", "--no-progress", "--device", "cpu", "--data-path", str(tmp_path)]
    assert main(["distill", *arguments, "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["dataset"], summary["student"], summary["steps"]) == ("cifar100", "resnet20", 8)
