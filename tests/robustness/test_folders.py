"""Commands beside each other in one folder, and commands in the folder of another one: nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from experiments import distill
from experiments.cli import main
from rlkd_env.errors import UsageError

INSTANCES = {"train": [{"name": "one", "seeds": [0, 2], "epochs": 1}]}
COMMANDS = {
    "distill": ["--rule", "fixed", "--epochs", "1"],
    "teacher": ["--model", "mlp6", "--epochs", "1"],
    "train-agent": ["--instances", "instances.yaml", "--num-runs", "4", "--population", "4", "--updates", "1"],
}
QUICK = ["--device", "cpu", "--no-progress"]


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("instances.yaml").write_text(json.dumps(INSTANCES))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_in_which_another_works_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = Path("out")
    out.mkdir()
    with FileLock(out / ".lock"):
        assert main([command, *COMMANDS[command], *QUICK, "--out", "out"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("rlkd: error: another rlkd works in out")
    assert content(out).keys() == {"out/.lock"}


def test_from_python_too() -> None:
    Path("out").mkdir()
    with FileLock("out/.lock"), pytest.raises(UsageError, match="another rlkd works in"):
        distill("auto", "auto", "digits", temperature=4, epochs=1, progress=False, device="cpu", folder="out")


@pytest.mark.slow
def test_of_two_at_once_one_makes_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The second starts while the folder does not exist yet, so that only the lock can tell."""
    command = [sys.executable, "-m", "experiments", "distill", "--epochs", "200", *QUICK, "--rule", "fixed"]
    command += ["--no-tensorboard", "--out", "out"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in range(2)]
    told = [process.communicate()[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], told
    refused = told[codes.index(2)]
    assert "another rlkd works in" in refused or "holds another run" in refused
    assert main(["validate", "out", "--no-progress"]) == 0


@pytest.mark.slow
def test_a_killed_run_holds_no_lock() -> None:
    command = [sys.executable, "-m", "experiments", "distill", "--epochs", "3000", *QUICK, "--rule", "fixed"]
    process = subprocess.Popen([*command, "--no-tensorboard", "--checkpoint-seconds", "0", "--out", "out"])
    deadline = time.monotonic() + 60
    while not Path("out/checkpoint/checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert main(["distill", "--overwrite", *COMMANDS["distill"], *QUICK, "--out", "out"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_replaces_what_another_has_made(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, *COMMANDS[command], *QUICK, "--out", "out"]) == 0
    before = content(Path("out"))
    for other, options in COMMANDS.items():
        code = main([other, *options, *QUICK, "--overwrite", "--out", "out"])
        if other == command:
            assert code == 0
            before = content(Path("out"))
            continue
        assert code == 2
        assert "take another --out" in capsys.readouterr().err
        assert content(Path("out")) == before


@pytest.mark.parametrize("option", ["train-images", "teacher-images", "validation-images", "probe-size"])
def test_no_images_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", f"--{option}", "0", *QUICK, "--out", "out"]) == 2
    assert "must be at least 1 image, not 0" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_probe_that_is_smaller_than_asked_for_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["distill", *COMMANDS["distill"], *QUICK, "--no-tensorboard"]
    for size, is_told in (("400", True), ("100", False)):
        assert main([*command, "--probe-size", size, "--out", size]) == 0
        told = f"rlkd: rewards are measured on 150 images, all that the probe part has, not {size}\n"
        assert (told in capsys.readouterr().err) == is_told
