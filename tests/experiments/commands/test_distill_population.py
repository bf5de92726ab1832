"""``rlkd distill --population``: what the members are, which is chosen, what is kept, and how it stops and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.cli import main
from experiments.session.checkpoints import SafePoints
from rlkd_env.data import DATASETS
from rlkd_env.models.storage import load_network

QUICK = ("--epochs", "10", "--no-progress", "--device", "cpu")
FIXED = ("--rule", "fixed", "--members", "1", "0.8s", "20")
NAMES = ["T=1", "T=0.8s", "T=20"]
AGENT = ("--agent", "ppo", "--calibrator", "uniform", "--no-explore", "--warmup-epochs", "2", "--population", "2")


def distill(out: Path, *options: str) -> int:
    return main(["distill", "--out", str(out), *QUICK, *options])


def read(out: Path, name: str = "summary.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / name).read_text())
    return content


def without_clock(epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in epochs]


def students(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.safetensors"))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A population of three, one after the other."""
    out = tmp_path_factory.mktemp("runs") / "population"
    assert distill(out, *FIXED, "--run-mode", "serial") == 0
    return out


def test_the_folder_is_that_of_a_run_with_its_members(finished: Path) -> None:
    files = {path.relative_to(finished).as_posix() for path in finished.rglob("*")}
    expected = {"config.json", "summary.json", "history.json", "trace.safetensors", "population.json"}
    expected |= {"student.safetensors", "student_last.safetensors", *(f"members/{name}.safetensors" for name in NAMES)}
    assert expected <= files
    assert read(finished, "population.json") == {
        "mode": "serial",
        "members": {
            name: {"rule": "fixed", "fixed_temperature": temperature}
            for name, temperature in zip(NAMES, ("1", "0.8s", "20"), strict=True)
        },
    }


@pytest.mark.parametrize(("name", "temperature"), [("T=1", "1"), ("T=0.8s", "0.8s")])
def test_every_member_is_the_run_with_its_temperature_bit_for_bit(
    finished: Path, tmp_path: Path, name: str, temperature: str
) -> None:
    assert distill(tmp_path, "--rule", "fixed", "--fixed-temperature", temperature, "--no-tensorboard") == 0
    assert (finished / "members" / f"{name}.safetensors").read_bytes() == students(tmp_path)["student.safetensors"]
    epochs = read(finished, "history.json")["members"][name]
    assert without_clock(epochs) == without_clock(read(tmp_path, "history.json")["epochs"])
    (member,) = (one for one in read(finished)["population"]["members"] if one["name"] == name)
    alone = read(tmp_path)
    for key, of_run in {
        "val_accuracy": "student_best_val_accuracy",
        "test_accuracy": "student_best_test_accuracy",
        "epoch": "student_best_epoch",
        "last_val_accuracy": "student_last_val_accuracy",
        "last_test_accuracy": "student_last_test_accuracy",
        "sha256": "student_best_sha256",
        "diverged": "diverged",
    }.items():
        assert member[key] == alone[of_run]
    assert member["mean_temperature"] == pytest.approx(alone["mean_temperature"])


def test_the_best_on_the_validation_images_is_the_student_of_the_run(finished: Path) -> None:
    told, history = read(finished), read(finished, "history.json")
    best = told["population"]["best"]

    def rank(name: str) -> tuple[float, float]:
        epochs = history["members"][name]
        return max((epoch["validation_accuracy"], -epoch["validation_loss"]) for epoch in epochs)

    assert best == max(NAMES, key=rank)
    assert (finished / "student.safetensors").read_bytes() == (finished / f"members/{best}.safetensors").read_bytes()
    (member,) = (one for one in told["population"]["members"] if one["name"] == best)
    assert (told["student_val_accuracy"], told["student_test_accuracy"]) == (rank(best)[0], member["test_accuracy"])
    assert told["student_last_test_accuracy"] == member["last_test_accuracy"]
    assert history["epochs"] == history["members"][best]


def test_all_that_may_be_kept_is_measured(finished: Path) -> None:
    test, validation = DATASETS["digits"]().test_set(), DATASETS["digits"]().splits().validation
    members = [load_network(finished / f"members/{name}.safetensors", 10, (1, 8, 8)) for name in NAMES]
    candidates = read(finished)["population"]["candidates"]
    assert [*candidates] == ["best", "average-weights", "ensemble"]
    for key, images in (("test_accuracy", test), ("val_accuracy", validation)):
        with torch.no_grad():
            probabilities = torch.stack([one(images.images).softmax(dim=-1) for one in members]).mean(dim=0)
        accuracy = float((probabilities.argmax(dim=-1) == images.labels).float().mean())
        assert candidates["ensemble"][key] == pytest.approx(accuracy)


@pytest.mark.parametrize("keep", ["average-weights", "ensemble"])
def test_what_is_asked_for_is_kept(keep: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(tmp_path, *FIXED, "--keep", keep, "--run-mode", "stacked") == 0
    told = read(tmp_path)
    candidate = told["population"]["candidates"][keep]
    assert candidate["test_accuracy"] == told["student_test_accuracy"]
    assert candidate["val_accuracy"] == told["student_val_accuracy"]
    assert told["student_epoch"] is None
    assert "(kept)" in capsys.readouterr().out
    members = [load_file(tmp_path / f"members/{name}.safetensors") for name in NAMES]
    if keep == "ensemble":
        assert not (tmp_path / "student.safetensors").exists()
        return
    for name, weight in load_file(tmp_path / "student.safetensors").items():
        torch.testing.assert_close(weight, torch.stack([one[name] for one in members]).mean(dim=0))


def test_every_member_has_a_curve(finished: Path) -> None:
    history = read(finished, "history.json")["members"]
    for name in NAMES:
        events = EventAccumulator(str(finished / "members" / name)).Reload()
        drawn = [event.value for event in events.Scalars("student/validation_accuracy")]
        assert drawn == pytest.approx([epoch["validation_accuracy"] for epoch in history[name]])


def test_the_cost_is_told_before_and_all_members_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(tmp_path, "--population", "3", "--no-tensorboard") == 0
    out = capsys.readouterr().out
    told = read(tmp_path)["population"]
    first, *_ = out.splitlines()
    assert first.startswith(f"a population of 3, {told['mode']}: an update of all takes about ")
    assert "times that of one student; 40 updates of each, 120 in all, take about" in first
    assert [member["name"] for member in told["members"]] == ["1.5s-to-0.175s", "3s-to-0.35s", "6s-to-0.7s"]
    for member in told["members"]:
        assert member["name"] in out
        assert f"{member['last_test_accuracy']:.2%}" in out
    assert "temperatures from anneal" in out


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["workers", "stacked"])
def test_members_of_other_modes_are_those_runs_too(finished: Path, tmp_path: Path, mode: str) -> None:
    assert distill(tmp_path, *FIXED, "--run-mode", mode, "--no-tensorboard") == 0
    tolerance = {"rtol": 0.0, "atol": 0.0} if mode == "workers" else {"rtol": 1e-3, "atol": 1e-4}
    for name in NAMES:
        path = f"members/{name}.safetensors"
        torch.testing.assert_close(load_file(tmp_path / path), load_file(finished / path), **tolerance)


STOPPED = [
    (*FIXED, "--run-mode", "serial"),
    (*FIXED, "--run-mode", "workers"),
    ("--population", "3", "--run-mode", "stacked"),
    ("--population", "3", "--keep", "average-weights"),
    (*AGENT, "--run-mode", "stacked"),
]


@pytest.mark.parametrize("options", STOPPED, ids=" ".join)
def test_a_stopped_population_goes_on_bit_for_bit(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(tmp_path / "straight", *options) == 0
    mode = read(tmp_path / "straight", "population.json")["mode"]
    reach = SafePoints.reach

    def stop(safe_points: SafePoints) -> None:
        if safe_points._parts["run"].epoch >= 4:
            safe_points.stop.ask()
        reach(safe_points)

    with monkeypatch.context() as patched:
        patched.setattr(SafePoints, "reach", stop)
        assert (
            distill(tmp_path / "stopped", *options, *(() if "--run-mode" in options else ("--run-mode", mode))) == 130
        )
    assert (tmp_path / "stopped" / "student.safetensors").is_file()
    assert "interrupted at update" in capsys.readouterr().err
    assert main(["distill", "--out", str(tmp_path / "stopped"), "--resume", "--no-progress"]) == 0
    assert students(tmp_path / "stopped") == students(tmp_path / "straight")
    one, other = (read(tmp_path / name, "history.json") for name in ("straight", "stopped"))
    for name, epochs in one["members"].items():
        assert without_clock(epochs) == without_clock(other["members"][name])
    best = read(tmp_path / "stopped")["population"]["best"]
    events = EventAccumulator(str(tmp_path / "stopped" / "members" / best)).Reload()
    assert [event.step for event in events.Scalars("temperature/mean")] == [4 * epoch for epoch in range(1, 11)]


@pytest.mark.slow
def test_a_killed_population_goes_on_as_it_was_computed(tmp_path: Path) -> None:
    options = ["distill", "--population", "4", "--epochs", "80", "--no-progress", "--device", "cpu", "--no-tensorboard"]
    stacked, often = ("--run-mode", "stacked"), ("--checkpoint-seconds", "0")
    command = [sys.executable, "-m", "experiments", *options, *stacked, *often, "--out", str(tmp_path / "killed")]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])})
    checkpoint = tmp_path / "killed" / "checkpoint" / "checkpoint-previous.pt"
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "summary.json").exists()
    assert main(["distill", "--out", str(tmp_path / "killed"), "--resume", "--no-progress", "--no-tensorboard"]) == 0
    assert read(tmp_path / "killed")["population"]["mode"] == "stacked"  # without being told, or measured again
    assert main([*options, *stacked, "--out", str(tmp_path / "whole")]) == 0
    assert students(tmp_path / "killed") == students(tmp_path / "whole")


def test_an_agent_acts_for_all_students(tmp_path: Path) -> None:
    assert distill(tmp_path, *AGENT, "--learn-interval", "2") == 0
    told = read(tmp_path)
    assert [member["name"] for member in told["population"]["members"]] == ["student-1", "student-2"]
    one, other = (load_file(tmp_path / f"members/student-{number}.safetensors") for number in (1, 2))
    assert any(not torch.equal(one[name], other[name]) for name in one)  # as the agent explores
    assert (tmp_path / "policy.safetensors").is_file()
    assert told["temperature_from"] == "ppo-around-anneal"
    assert told["agent_seconds"] > 0.0
    events = EventAccumulator(str(tmp_path)).Reload()
    assert "train/value_loss" in events.Tags()["scalars"]


def test_a_member_that_diverges_ends_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(tmp_path, "--rule", "fixed", "--members", "4", "1e30", "--run-mode", "stacked") == 0
    told = read(tmp_path)
    assert [member["diverged"] for member in told["population"]["members"]] == [False, True]
    assert (told["diverged"], told["population"]["best"]) == (False, "T=4")
    assert told["population"]["candidates"]["ensemble"]["test_accuracy"] == told["student_test_accuracy"]
    assert "T=1e+30 (diverged)" in " ".join(capsys.readouterr().out.split())


def test_a_population_of_which_all_diverge_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(tmp_path, "--rule", "fixed", "--members", "2e30", "1e30", "--no-tensorboard") == 1
    assert "the run diverged at update 4" in capsys.readouterr().err
    assert read(tmp_path)["population"]["candidates"] == {}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--population", "1"), "population must be at least 2 and at most 1000 students, not 1"),
        (("--rule", "fixed", "--members", "2"), "needs at least 2 --members"),
        (("--population", "4", *FIXED), "3 --members are named for a --population of 4"),
        (("--keep", "ensemble"), "--keep and --run-mode are for a --population"),
        (("--population", "2", "--rule", "lskd"), "with the rule lskd would all be the same student"),
        (("--population", "2", "--agent", "pretrained"), "with one policy would all be the same student"),
        (("--population", "2", "--agent", "ppo", "--no-explore"), "needs --calibrator uniform"),
        (("--population", "2", "--agent", "ppo", "--calibrator", "uniform", "--epochs", "40"), "--no-explore"),
        ((*AGENT[:-2], "--members", "1", "2"), "--members are temperatures of a rule"),
        (("--population", "2", "--method", "cross_entropy"), "without temperatures in the loss"),
        (("--population", "2", "--run-mode", "stacked", "--curriculum-phases", "4"), "cannot be stacked: exploration"),
        (("--population", "2", "--rule", "anneal", "--preset", "digits_detection"), "population is of classifiers"),
    ],
)
def test_what_cannot_be_a_population_is_told_in_a_line(
    options: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(tmp_path / "out", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (tmp_path / "out").exists()


def test_torchruns_processes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert distill(tmp_path / "out", "--population", "2") == 2
    assert "a population needs a single process" in capsys.readouterr().err


def test_a_curriculum_goes_with_members_one_after_the_other(tmp_path: Path) -> None:
    assert distill(tmp_path, *FIXED, "--run-mode", "serial", "--curriculum-phases", "3", "--no-tensorboard") == 0
    alone = ("--rule", "fixed", "--fixed-temperature", "1", "--curriculum-phases", "3", "--no-tensorboard")
    assert distill(tmp_path / "alone", *alone) == 0
    assert (tmp_path / "members/T=1.safetensors").read_bytes() == students(tmp_path / "alone")["student.safetensors"]


def test_settings_without_a_population_do_not_speak_of_one(tmp_path: Path) -> None:
    assert distill(tmp_path, "--rule", "fixed", "--no-tensorboard") == 0
    assert not {"population", "members", "keep", "run_mode"} & read(tmp_path, "config.json").keys()
    assert "population" not in read(tmp_path)


def test_a_population_is_an_arm_of_a_comparison(tmp_path: Path) -> None:
    arms = ("--arms", "pair", "{rule: fixed, members: [2, 8]}", "--seeds", "1", "--epochs", "3", "--device", "cpu")
    given = ["compare", *arms, "--no-progress", "--executor", "serial", "--out", str(tmp_path)]
    assert main(given) == 0
    made = tmp_path / "runs" / "digits" / "pair" / "seed0"
    (row,) = (run for run in read(tmp_path, "comparison.json")["runs"] if run["arm"] == "pair")
    assert row["chosen_test_accuracy"] == read(made)["population"]["candidates"]["best"]["test_accuracy"]
    before = (made / "summary.json").stat().st_mtime_ns
    assert main(given) == 0
    assert (made / "summary.json").stat().st_mtime_ns == before  # a finished population is not made again
