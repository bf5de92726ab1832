"""``rlkd bench --data``: the data path alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from image_files import write_folder
from PIL import Image

from experiments.cli import main
from experiments.commands.bench.pipeline import write_files

QUICK = ("bench", "--data", "--device", "cpu", "--seconds", "0.1", "--batch-size", "8")


def test_made_up_files_are_jpegs_of_the_usual_size_in_two_classes(tmp_path: Path) -> None:
    write_files(tmp_path)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len(files) == 128
    assert {path.parent.name for path in files} == {"class0", "class1"}
    with Image.open(files[0]) as picture:
        assert sorted(picture.size) == [375, 500]
        assert picture.mode == "RGB"
    assert 40_000 < files[0].stat().st_size < 150_000


@pytest.mark.slow
def test_made_up_files_are_read_by_one_two_and_four_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.commands.bench.pipeline.available_cores", lambda: 5)
    assert main([*QUICK, "--image-size", "72", "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "bench.json").read_text())["pipeline"]
    assert (told["dataset"], told["image_shape"], told["batch_size"]) == ("made-up JPEG files", [3, 72, 72], 8)
    assert list(told["read_images_per_s"]) == ["1", "2", "4"]
    assert all(rate > 0 for rate in told["read_images_per_s"].values())
    assert list(told["device_images_per_s"]) == ["normalised"]  # nothing is copied to a CPU
    assert "images/s read" in capsys.readouterr().out


@pytest.mark.slow
def test_the_files_of_the_options_are_read_unless_they_are_in_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.commands.bench.pipeline.available_cores", lambda: 1)
    folder = ("--dataset", "image_folder", "--data-path", str(write_folder(tmp_path / "data", {"cat": 20, "dog": 20})))
    given = [*QUICK, *folder, "--image-size", "16"]
    assert main([*given, "--augmentation", "resized_crop", "--out", str(tmp_path / "bench")]) == 0
    told = json.loads((tmp_path / "bench" / "bench.json").read_text())["pipeline"]
    assert (told["dataset"], list(told["read_images_per_s"])) == ("image_folder", ["1"])
    assert main([*given, "--out", str(tmp_path / "memory")]) == 2
    assert "image_folder are in memory: --data is for" in capsys.readouterr().err
