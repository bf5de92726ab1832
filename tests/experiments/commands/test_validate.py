"""``rlkd validate``: a run made again from its summary, and what it tells where something differs."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from experiments.cli import main
from experiments.commands.validate import compare, why_bits_may_differ
from rlkd_env.utils.files import read_tensors, write_tensors

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an agent that explores, on the threads that this process has."""
    out = tmp_path_factory.mktemp("runs") / "ppo"
    options = ["--epochs", "12", "--warmup-epochs", "2", "--explore-first-epoch", "5", "--seed", "3"]
    assert main(["distill", "--agent", "ppo", "--out", str(out), "--no-progress", "--device", "cpu", *options]) == 0
    return out


@pytest.fixture
def changed(made: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """Copy the run, with another summary."""

    def copy(change: Change) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(made, folder)
        told = json.loads((folder / "summary.json").read_text())
        change(told)
        (folder / "summary.json").write_text(json.dumps(told))
        return folder

    return copy


def validate(path: Path, *options: str) -> int:
    return main(["validate", str(path), "--no-progress", *options])


def test_a_run_holds_bit_for_bit(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(made / "summary.json", "--out", str(tmp_path / "again")) == 0
    told = capsys.readouterr().out
    assert "bits have to be equal" in told
    assert "figures hold" in told
    for name in ("student.safetensors", "student_last.safetensors", "policy.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (made / name).read_bytes()
    assert validate(made, "--out", str(tmp_path / "again")) == 2  # which is not replaced


def test_a_figure_that_is_wrong_is_told(changed: Callable[[Change], Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = changed(lambda told: told.update(student_last_test_accuracy=told["student_last_test_accuracy"] + 0.001))
    assert validate(folder) == 1
    told = capsys.readouterr().out
    assert "1 of" in told
    assert [line for line in told.splitlines() if "student_last_test_accuracy" in line and "differs" in line]


def test_other_settings_than_the_recorded_ones_are_told(
    changed: Callable[[Change], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate(changed(lambda told: told["settings"].update(seed=4))) == 1
    told = capsys.readouterr().out
    assert [line for line in told.splitlines() if " settings " in line and "differs" in line]
    assert [line for line in told.splitlines() if "student_sha256" in line and "differs" in line]


def test_a_student_that_is_not_the_runs_is_told(
    changed: Callable[[Change], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(lambda told: None)
    content = bytearray((folder / "student_last.safetensors").read_bytes())
    content[-1] ^= 0x01  # of a weight
    (folder / "student_last.safetensors").write_bytes(bytes(content))
    assert validate(folder) == 1
    told = capsys.readouterr().out
    assert [line for line in told.splitlines() if "student_last.safetensors" in line and "differs" in line]
    assert "1 of" in told


@pytest.mark.parametrize("name", ["config.json", "history.json", "trace.safetensors"])
def test_what_is_damaged_beside_the_summary_is_refused_before_anything_is_made(
    name: str, changed: Callable[[Change], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(lambda told: None)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert validate(folder) == 2
    assert name in capsys.readouterr().err


def test_options_and_a_trace_that_are_not_the_runs_are_told(
    changed: Callable[[Change], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(lambda told: None)
    options = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(options | {"momentum": 0.5}))
    columns, metadata = read_tensors(folder / "trace.safetensors")
    columns["temperature"][0] += 1.0
    write_tensors(folder / "trace.safetensors", columns, metadata)
    assert validate(folder) == 1
    told = capsys.readouterr().out
    assert "2 of" in told
    for name in ("config.json", "trace.safetensors"):
        assert [line for line in told.splitlines() if name in line and "differs" in line]


def test_with_other_versions_accuracies_need_only_be_near(
    changed: Callable[[Change], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def of_another_version(told: dict[str, Any]) -> None:
        told["versions"]["torch"] = "2.0.0"
        told["student_sha256"] = "0" * 64
        told["student_test_accuracy"] += 0.02

    folder = changed(of_another_version)
    (folder / "student.safetensors").unlink()  # its bits are known, whatever the version
    assert validate(folder) == 0
    assert "torch was 2.0.0" in capsys.readouterr().out
    assert validate(folder, "--tolerance", "0.01") == 1


def test_what_may_change_bits_is_named() -> None:
    surroundings = {"device": "cpu", "processor": "a", "threads": 1, "processes": 1, "versions": {"torch": "2"}}
    assert why_bits_may_differ(surroundings, surroundings) == []
    assert why_bits_may_differ(surroundings, surroundings | {"threads": 2}) == ["threads was 1, is 2"]
    on_gpu = surroundings | {"device": "cuda"}
    assert why_bits_may_differ(on_gpu, on_gpu) == ["a GPU adds up in an order of its own"]


def test_times_are_not_compared_and_tolerance_is_for_accuracies_alone() -> None:
    recorded = {"seconds": 1.0, "step_ms": 2.0, "steps": 4, "last_accuracy": 0.5, "student_sha256": "a"}
    again = {"seconds": 2.0, "step_ms": 3.0, "steps": 5, "last_accuracy": 0.51, "student_sha256": "b"}
    strict = {check.name: check.holds for check in compare(recorded, again, 0.02, is_tolerant=False)}
    assert strict == {"steps": False, "last_accuracy": False, "student_sha256": False}
    tolerant = {check.name: check.holds for check in compare(recorded, again, 0.02, is_tolerant=True)}
    assert tolerant == {"steps": False, "last_accuracy": True}


def test_what_is_no_summary_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(tmp_path) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "summary.json").write_text("{}")
    assert validate(tmp_path) == 2
    assert "not the summary of a run" in capsys.readouterr().err


def test_a_population_holds_as_it_was_computed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--rule", "fixed", "--members", "2", "8", "--run-mode", "stacked", "--keep", "average-weights")
    made = tmp_path / "made"
    assert main(["distill", "--epochs", "3", "--no-progress", "--device", "cpu", *options, "--out", str(made)]) == 0
    assert main(["validate", str(made), "--out", str(tmp_path / "again"), "--no-progress"]) == 0
    assert "bits have to be equal" in capsys.readouterr().out
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert again["population"] == json.loads((made / "summary.json").read_text())["population"]


def random_squares(train: bool) -> Dataset:
    """Stands for a Dataset with random transforms and nothing else."""
    return RandomSquares(90 if train else 30)


class RandomSquares(Dataset):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return (index % 3) / 3 + 0.3 * torch.rand(1, 8, 8) + 0.3 * random.random(), index % 3


@pytest.mark.slow
def test_a_run_on_random_transforms_of_the_users_own_holds_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "users_squares", sys.modules[__name__])
    data = ["--dataset", "users_squares:random_squares", "--workers", "0", "--batch-size", "16", "--no-progress"]
    teacher = ["--model", "mlp16", "--epochs", "8", "--learning-rate", "0.01", "--out", str(tmp_path / "teacher")]
    assert main(["teacher", *data, *teacher, "--device", "cpu"]) == 0
    student = ["--force", "--student", "mlp6", "--epochs", "3", "--teacher", str(tmp_path / "teacher"), "--out"]
    assert main(["distill", *data, *student, str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert validate(tmp_path / "run", "--trust", "users_squares:random_squares") == 0
    assert "bits have to be equal" in capsys.readouterr().out
