"""Commands beside each other in one folder, and commands in the folder of another one: nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import fork, killed, wait_until
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
def test_of_two_at_once_one_makes_the_run(tmp_path: Path) -> None:
    """The second starts while the folder does not exist yet, so that only the lock can tell."""
    command = ["distill", "--epochs", "200", *QUICK, "--rule", "fixed", "--no-tensorboard", "--out"]
    both = [fork(*command, str(tmp_path / "out")) for _ in range(2)]
    told = [process.communicate()[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], told
    refused = told[codes.index(2)]
    assert "another rlkd works in" in refused or "holds another run" in refused
    assert main(["validate", "out", "--no-progress"]) == 0


@pytest.mark.slow
def test_a_killed_run_holds_no_lock(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = [*QUICK, "--rule", "fixed", "--no-tensorboard", "--checkpoint-seconds", "0", "--out", str(out)]
    process = fork("distill", "--epochs", "3000", *options)
    wait_until((out / "checkpoint" / "checkpoint.pt").exists, process)
    killed(process)
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


@pytest.mark.slow
def test_an_export_replaces_nothing_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", *COMMANDS["distill"], *QUICK, "--student", "mlp6", "--out", "run"]) == 0
    command = ["export", "run", "--format", "state-dict", "--out", "mine"]
    Path("mine").mkdir()
    for name in ("student.pth", "MODEL_CARD.md"):
        Path("mine", name).write_text("mine")
    assert main(command) == 2
    assert "holds student.pth already: add --overwrite" in capsys.readouterr().err
    Path("mine/student.pth").unlink()
    assert main(command) == 0
    assert "MODEL_CARD.md is kept as it is there" in capsys.readouterr().out
    assert Path("mine/MODEL_CARD.md").read_text() == "mine"
    Path("kept").write_text("mine")
    Path("mine/student.pth").unlink()
    Path("mine/student.pth").symlink_to(Path("kept").absolute())
    assert main([*command, "--overwrite"]) == 0
    assert Path("kept").read_text() == "mine"
    assert "`student.pth`" in Path("mine/MODEL_CARD.md").read_text()
