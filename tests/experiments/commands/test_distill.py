"""``rlkd distill`` from end to end: what it writes, how it stops and goes on, and what it refuses."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from by_ppo import by_ppo
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.learned.temperature_policy import TemperaturePolicy
from experiments.cli import main
from experiments.session import checkpoints
from experiments.session.checkpoints import LATEST, PREVIOUS
from rlkd_env.models.storage import load_network

QUICK = ("--epochs", "20", "--warmup-epochs", "2", "--no-progress", "--device", "cpu")


def distill(out: Path, *options: str) -> int:
    return main(["distill", "--out", str(out), *QUICK, *by_ppo(*options)])


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def without_clock(out: Path) -> list[dict[str, Any]]:
    """The run's history but for its seconds."""
    epochs = json.loads((out / "history.json").read_text())["epochs"]
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in epochs]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} if folder.exists() else set()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished PPO run."""
    out = tmp_path_factory.mktemp("runs") / "ppo"
    assert distill(out, "--student-alone", "--explore-first-epoch", "15", "--around", "None") == 0
    return out


def test_the_folder_holds_what_the_readme_says(finished: Path) -> None:
    expected = {"config.json", "summary.json", "student.safetensors", "student_last.safetensors"}
    expected |= {"policy.safetensors", "policy.json", "history.json", "trace.safetensors"}
    assert expected <= files(finished)
    assert len([name for name in files(finished) if name.startswith("events.out.tfevents.")]) == 2  # curves and figures
    assert [name for name in files(finished) if "/." in f"/{name}"] == [".lock"]  # no temporary file is left


def test_the_summary_tells_what_happened(finished: Path) -> None:
    told = summary(finished)
    assert (told["epochs"], told["steps"], told["seed"], told["diverged"]) == (20, 80, 0, False)
    assert told["teacher_test_accuracy"] > 0.95
    assert 0.5 < told["student_test_accuracy"] <= 1.0
    assert 0.5 < told["student_val_accuracy"] <= 1.0
    assert 0.3 < told["student_alone_test_accuracy"] <= 1.0
    assert 0.0 < told["agent_seconds"] < told["seconds"]
    assert (
        told["versions"]["torch"] == torch.__version__.split("+")[0] or told["versions"]["torch"] == torch.__version__
    )


def test_the_test_accuracy_is_that_of_the_saved_students(finished: Path) -> None:
    from rlkd_env.data import DATASETS

    test = DATASETS["digits"]().test_set()
    for name, key in (("student", "student_test_accuracy"), ("student_last", "student_last_test_accuracy")):
        network = load_network(finished / f"{name}.safetensors", 10, (1, 8, 8))
        with torch.no_grad():
            accuracy = (network(test.images).argmax(1) == test.labels).float().mean()
        assert summary(finished)[key] == pytest.approx(float(accuracy))


def test_the_curves_have_readable_tags(finished: Path) -> None:
    events = EventAccumulator(str(finished)).Reload()
    tags = events.Tags()
    scalars = set(tags["scalars"])
    assert {
        "student/loss",
        "student/loss_task",
        "student/loss_kd",
        "student/training_accuracy",
        "student/validation_accuracy",
        "student/validation_loss",
        "student/learning_rate",
        "temperature/mean",
        "temperature/quantile_0.05",
        "temperature/quantile_0.95",
        "reward/epoch",
        "reward/spread",
        "rollout/ep_rew_mean",
        "rollout/ep_len_mean",
        "train/policy_gradient_loss",
        "train/value_loss",
        "time/fps",
        "time/environment_seconds",
        "time/agent_seconds",
    } <= scalars
    assert set(tags["histograms"]) == {"temperature/log2_histogram", "sampling/score"}
    assert set(tags["images"]) <= {"temperature/against_teacher_confidence"}  # none where there is no time for it
    assert [event.step for event in events.Scalars("student/loss")] == [4 * epoch for epoch in range(1, 21)]
    means = [event.value for event in events.Scalars("temperature/mean")]
    assert means[:2] == [4.0, 4.0]  # the warm-up
    assert means[2] != 4.0
    rewards = [event.value for event in events.Scalars("reward/epoch")]
    assert events.Scalars("rollout/ep_rew_mean")[-1].value == pytest.approx(sum(rewards), abs=1e-5)
    assert events.Scalars("rollout/ep_len_mean")[-1].value == 80.0


def test_history_and_trace_agree_with_the_curves_and_the_summary(finished: Path) -> None:
    epochs = without_clock(finished)
    events = EventAccumulator(str(finished)).Reload()
    for tag, name in (("student/validation_accuracy", "validation_accuracy"), ("temperature/mean", "temperature_mean")):
        values = [event.value for event in events.Scalars(tag)]
        assert values == pytest.approx([epoch[name] for epoch in epochs])
    assert epochs[-1]["validation_accuracy"] == summary(finished)["student_last_val_accuracy"]
    trace = load_file(finished / "trace.safetensors")
    has_reward = trace["reward"].isfinite()
    assert bool(has_reward[trace["epoch"] > 2].all())  # after the warm-up the rewards are decomposed
    assert not bool(has_reward[trace["epoch"] <= 2].any())
    assert trace["temperature"][trace["epoch"] <= 2].unique().tolist() == [4.0]


@pytest.mark.slow
def test_the_policy_can_be_used_frozen_on_another_run(finished: Path, tmp_path: Path) -> None:
    policy = TemperaturePolicy.load(finished)
    assert policy.features == ("teacher_performance", "student_performance", "student_uncertainty", "progress")
    assert distill(tmp_path / "a", "--policy", str(finished), "--seed", "5") == 0
    told = summary(tmp_path / "a")
    assert told["temperature_from"] == "policy"
    assert told["agent_seconds"] == 0.0
    assert "policy.json" not in files(tmp_path / "a")


@pytest.mark.slow
def test_a_student_can_be_the_next_teacher(finished: Path, tmp_path: Path) -> None:
    assert distill(tmp_path / "a", "--teacher", str(finished / "student.safetensors"), "--rule", "fixed") == 0
    assert summary(tmp_path / "a")["teacher_test_accuracy"] == summary(finished)["student_test_accuracy"]


@pytest.mark.slow
def test_a_stored_config_repeats_the_run(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    assert main(["distill", "--config", str(finished / "config.json"), "--out", str(out), "--no-progress"]) == 0
    for name in ("student.safetensors", "student_last.safetensors", "policy.safetensors"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.slow
def test_a_yaml_config_is_read_and_the_command_line_comes_before_it(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        "epochs: 2\nrule: fixed\nfixed-temperature: 2\nfeatures: [progress]\nmethod_options: {kd_weight: 0.5}\n"
    )
    out = tmp_path / "out"
    arguments = [
        "distill",
        "--config",
        str(config),
        "--epochs",
        "1",
        "--out",
        str(out),
        "--no-progress",
        "--device",
        "cpu",
    ]
    assert main(arguments) == 0
    stored = json.loads((out / "config.json").read_text())
    assert stored["epochs"] == 1
    assert stored["features"] == ["progress"]
    assert stored["method_options"] == {"kd_weight": 0.5}
    assert stored["fixed_temperature"] == 2.0


@pytest.mark.slow
def test_calibration_and_exploration_are_drawn_and_told(tmp_path: Path) -> None:
    out = tmp_path / "a"
    assert (
        distill(out, "--calibrator", "last_layer", "--explore", "--explore-first-epoch", "5", "--explore-interval", "3")
        == 0
    )
    told = summary(out)
    assert told["calibrator"] == "last_layer"
    assert told["exploration"]["first_epoch"] == 5
    events = EventAccumulator(str(out)).Reload()
    mixed = [event.value for event in events.Scalars("sampling/mixed_share")]
    assert [epoch for epoch, share in enumerate(mixed, start=1) if share > 0] == [
        5,
        8,
        11,
        14,
        17,
    ]  # not in the last tenth
    assert "sampling/score" in events.Tags()["histograms"]
    spread = [event.value for event in events.Scalars("reward/spread")]
    assert spread[-1] > 0


@pytest.mark.slow
def test_the_agent_learns_in_some_epochs_and_acts_in_the_others(tmp_path: Path) -> None:
    out = tmp_path / "a"
    options = [
        "--around",
        "None",
        "--learn-interval",
        "7",
        "--learn-last-epoch",
        "12",
        "--epochs",
        "24",
        "--agent-options",
        "n_steps",
        "4",
        "batch_size",
        "256",
    ]
    assert distill(out, *options) == 0
    events = EventAccumulator(str(out)).Reload()
    seconds = [event.value for event in events.Scalars("time/agent_seconds")]
    assert len(seconds) == 24 - 8  # the warm-up is 2 epochs, so the first to learn is the 9th
    learning = [epoch for epoch, (one, two) in enumerate(itertools.pairwise([0.0, *seconds]), start=9) if two > one]
    assert learning == [9, 10]  # the update on the 9th epoch's rollout falls into the 10th
    quantiles = [
        [event.value for event in events.Scalars(f"temperature/quantile_{share}")] for share in ("0.05", "0.95")
    ]
    assert quantiles[0][1] == quantiles[1][1] == 4.0
    assert quantiles[0][20] < quantiles[1][20]  # the policy acts, and tells instances apart
    assert summary(out)["learn_interval"] == 7


@pytest.mark.slow
def test_any_part_of_the_default_can_be_switched_off(finished: Path, tmp_path: Path) -> None:
    told = summary(finished)
    assert told["calibrator"] == "return_decomposition"
    assert told["exploration"]["first_epoch"] == 15
    assert distill(tmp_path / "a", "--no-explore", "--calibrator", "uniform") == 0
    assert summary(tmp_path / "a")["exploration"] is None
    assert summary(tmp_path / "a")["calibrator"] == "uniform"
    assert distill(tmp_path / "b", "--rule", "fixed") == 0
    assert summary(tmp_path / "b")["exploration"] is None
    assert summary(tmp_path / "b")["calibrator"] is None


@pytest.mark.slow
def test_the_papers_preset_is_a_config_that_options_come_before(tmp_path: Path) -> None:
    out = tmp_path / "a"
    arguments = [
        "distill",
        "--preset",
        "paper",
        "--epochs",
        "45",
        "--out",
        str(out),
        "--no-progress",
        "--device",
        "cpu",
    ]
    assert main(arguments) == 0
    stored = json.loads((out / "config.json").read_text())
    assert (stored["epochs"], stored["warmup_epochs"], stored["learn_interval"]) == (45, 20, 20)
    assert (stored["temperature_min"], stored["temperature_max"]) == (1, 10)
    assert summary(out)["exploration"]["interval"] == 20


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["sac", "td3"])
def test_off_policy_agents_draw_their_losses_too(agent: str, tmp_path: Path) -> None:
    assert distill(tmp_path / "a", "--agent", agent) == 0
    events = EventAccumulator(str(tmp_path / "a")).Reload()
    assert "train/actor_loss" in events.Tags()["scalars"]


def test_another_run_in_the_folder_is_not_lost(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: (finished / name).stat().st_mtime_ns for name in files(finished)}
    assert distill(finished) == 2
    assert "holds another run: add --overwrite to replace it or --resume" in capsys.readouterr().err
    assert before == {name: (finished / name).stat().st_mtime_ns for name in files(finished)}
    assert distill(finished, "--resume", "--seed", "4") == 2
    assert "seed is 4, but the run in" in capsys.readouterr().err
    assert main(["distill", "--out", str(finished), "--resume"]) == 0
    assert "finished already" in capsys.readouterr().out


@pytest.mark.slow
def test_overwrite_replaces_the_run_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "a"
    assert distill(out, "--rule", "fixed") == 0
    (out / "notes.txt").write_text("mine")
    first = (out / "student.safetensors").read_bytes()
    assert distill(out, "--overwrite", "--seed", "3") == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "student.safetensors").read_bytes() != first
    assert summary(out)["seed"] == 3
    assert len(list(out.glob("events.out.tfevents.*"))) == 2


BAD_INPUT = [
    (["--agent", "pppo"], "unknown agent 'pppo'. Did you mean 'ppo'? Valid: a2c"),
    (["--method", "kdd"], "unknown method 'kdd'. Did you mean 'kd'? Valid: adain, at, box, catkd, cc, crd"),
    (["--method-options", "alpha", "1"], "unknown option of method 'kd' 'alpha'"),
    (["--features", "entropy"], "unknown feature 'entropy'"),
    (["--reward", "acc"], "unknown reward 'acc'"),
    (["--rule", "fix"], "unknown rule 'fix'. Did you mean 'fixed'?"),
    (["--dataset", "mnist"], "unknown data set 'mnist'. Valid: arrays, cifar10, cifar100, coco, digits"),
    (["--student", "resnet"], "unknown network 'resnet'"),
    (["--agent-options", "n_step", "3"], "Did you mean 'n_steps'?"),
    (["--agent-options", "learning_rate", "fast"], "learning rate must be a number"),
    (["--temperature-min", "0"], "must be positive"),
    (["--temperature-min", "-1"], "must be positive"),
    (["--temperature-min", "9", "--temperature-max", "3"], "is empty"),
    (["--temperature-max", "hot"], "'hot' is no temperature"),
    (["--fixed-temperature", "0"], "must be positive"),
    (["--batch-size", "301"], "larger than the training set of 300"),
    (["--epochs", "0"], "epochs must be at least 1"),
    (["--epochs", "many"], "--epochs"),
    (["--warmup-epochs", "-1"], "must not be negative"),
    (["--checkpoint-seconds", "-1"], "must not be negative"),
    (["--agnet", "ppo"], "Unrecognized options: --agnet"),
    (["--teacher", "/nowhere.safetensors"], "does not exist"),
    (["--policy", "/nowhere"], "does not exist"),
    (["--policy", "/nowhere", "--rule", "fixed"], "exclude each other"),
    (["--config", "/nowhere.json"], "/nowhere.json does not exist"),
    (["--resume"], "no run to resume"),
    (["--calibrator", "gradients"], "unknown calibrator 'gradients'. Did you mean 'gradient'?"),
    (["--preset", "papr"], "unknown preset 'papr'. Did you mean 'paper'?"),
    (["--learn-interval", "0"], "must be at least 1"),
    (["--explore", "--explore-first-epoch", "1"], "begins in epoch 2 or later"),
    (["--device", "cuda:77"], "not available"),
    (["--temperature-scale", "cubic"], "--temperature-scale"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "message"), BAD_INPUT, ids=[" ".join(options) for options, _ in BAD_INPUT])
def test_bad_input_gets_one_line_and_exit_code_2_and_leaves_nothing(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert distill(out, *options) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("rlkd: error: ")
    assert captured.err.count("\n") == 1
    assert not out.exists()


def test_configs_with_errors_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content, message in (
        ("epoch: 3", "Did you mean 'epochs'?"),
        ("[1, 2", "neither JSON nor YAML"),
        ("- epochs", "options by name"),
        ("momentum: some", "momentum must be a number, not 'some'"),
    ):
        (tmp_path / "config.yaml").write_text(content)
        assert distill(tmp_path / "out", "--config", str(tmp_path / "config.yaml")) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_damaged_policies_are_refused(finished: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "policy"
    damaged.mkdir()
    for name in ("policy.json", "policy.safetensors"):
        (damaged / name).write_bytes((finished / name).read_bytes()[:-3])
    assert distill(tmp_path / "a", "--policy", str(damaged)) == 2
    assert not (tmp_path / "a").exists()


def test_a_folder_that_cannot_be_written_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert distill(tmp_path / "file") == 2
    assert distill(tmp_path / "file" / "deeper") == 2
    assert capsys.readouterr().err.count("rlkd: error") == 2


def test_a_diverging_run_keeps_the_last_good_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a"
    assert distill(out, "--learning-rate", "1e6") == 1
    error = capsys.readouterr().err
    assert "diverged at update" in error
    assert summary(out)["diverged"]
    assert summary(out)["steps"] < 80
    for path in {*out.glob("*.safetensors")} - {out / "trace.safetensors"}:
        assert all(value.isfinite().all() for value in load_file(path).values()), path


def run_process(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "experiments", "distill", "--out", str(out), "--no-progress"]
    command += ["--device", "cpu"]
    return subprocess.Popen([*command, *by_ppo(*options)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def killed_before_checkpoint(number: int, arguments: list[str]) -> None:
    """Call rlkd in a fork of this process that is killed when it is about to write so manieth a checkpoint."""
    child = os.fork()
    if child == 0:
        save, count = checkpoints.save_checkpoint, itertools.count(1)

        def save_or_die(folder: Path, state: dict[str, Any]) -> None:
            if next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            save(folder, state)

        checkpoints.save_checkpoint = save_or_die
        try:
            main(arguments)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    time.sleep(1.1)  # TensorBoard orders event files by the second in their names


PAPER = (
    *("--agent", "ppo", "--reward-interval", "3", "--learn-interval", "6"),
    *("--explore-first-epoch", "8", "--explore-interval", "4", "--acting", "sample"),
)
FIRST_ORDER = ("--agent", "ppo", "--calibrator", "gradient", "--no-explore")


@pytest.mark.slow
@pytest.mark.parametrize("parts", [("--agent", "sac"), PAPER, FIRST_ORDER], ids=["sac", "paper", "gradient"])
def test_a_killed_run_that_is_resumed_ends_as_if_it_had_not_been_killed(parts: tuple[str, ...], tmp_path: Path) -> None:
    options = ["--epochs", "40", "--warmup-epochs", "5", "--checkpoint-seconds", "0", *parts]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    quiet = ["--no-progress", "--device", "cpu"]
    assert main(["distill", "--out", str(whole), *quiet, *options]) == 0
    for resume in ([], ["--resume"]):
        killed_before_checkpoint(8, ["distill", "--out", str(killed), *quiet, *options, *resume])
        assert not (killed / "summary.json").exists()
    assert main(["distill", "--out", str(killed), "--resume", "--no-progress"]) == 0
    for name in ("student.safetensors", "student_last.safetensors", "policy.safetensors", "trace.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    assert without_clock(whole) == without_clock(killed)
    clock = [epoch["seconds"] for epoch in json.loads((killed / "history.json").read_text())["epochs"]]
    assert clock == sorted(clock)
    same = ("student_test_accuracy", "student_last_test_accuracy", "student_epoch", "steps", "epochs")
    assert {key: summary(whole)[key] for key in same} == {key: summary(killed)[key] for key in same}
    curves = EventAccumulator(str(killed)).Reload()
    steps = [event.step for event in curves.Scalars("student/validation_accuracy")]
    assert steps == [4 * epoch for epoch in range(1, 41)]  # no epoch is missing or drawn twice


def test_interrupting_saves_what_there_is_and_says_where(tmp_path: Path) -> None:
    out = tmp_path / "a"
    process = run_process(out, "--epochs", "5000", "--checkpoint-seconds", "0")
    wait_for(out / "checkpoint" / LATEST, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"rlkd distill --resume --out {out}" in errors
    assert "Traceback" not in errors
    assert {"student.safetensors", "policy.safetensors", f"checkpoint/{LATEST}"} <= files(out)
    assert "summary.json" not in files(out)


@pytest.mark.slow
@pytest.mark.parametrize("interval", ["0", "1000"])
def test_an_agent_that_diverges_leaves_the_students_and_is_not_resumed(
    interval: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a"
    options = [*QUICK, *by_ppo("--agent-options", "learning_rate", "1e6", "--checkpoint-seconds", interval)]
    assert main(["distill", "--out", str(out), *options]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"^rlkd: the agent diverged at update \d+ of \d+ \(.*\): the students up to there are in", told)
    assert {"student.safetensors", "student_last.safetensors", "history.json"} <= files(out)
    assert not {"policy.safetensors", "summary.json"} & files(out)
    assert main(["distill", "--out", str(out), "--resume", "--no-progress"]) == 2
    assert "has diverged, and would do so again" in capsys.readouterr().err
    assert main(["distill", "--out", str(out), *QUICK, "--rule", "fixed", "--overwrite"]) == 0
    assert not (out / "agent.json").exists()


@pytest.mark.slow
def test_damaged_and_foreign_checkpoints_are_refused_and_the_older_one_is_offered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a"
    killed_before_checkpoint(3, ["distill", "--out", str(out), *QUICK, *by_ppo("--checkpoint-seconds", "0")])
    latest = out / "checkpoint" / LATEST
    good = latest.read_bytes()

    def resume() -> str:
        assert main(["distill", "--out", str(out), "--resume", "--no-progress"]) == 2
        return capsys.readouterr().err

    latest.write_bytes(good[: len(good) // 2])
    assert "is damaged; delete it to go on from the older" in resume()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    latest.write_bytes(bytes(flipped))
    assert "is damaged" in resume()
    torch.save({"format": "another"}, latest)
    assert "not a checkpoint of this version" in resume()
    latest.write_bytes(good)
    (out / "checkpoint" / PREVIOUS).write_bytes(b"nonsense")
    latest.write_bytes(good[:-1])
    message = resume()
    assert "is damaged" in message
    assert "older" not in message
    assert main(["distill", "--out", str(out), "--resume", "--epochs", "4000", "--no-progress"]) == 2
    assert "epochs is 4000, but the run in" in capsys.readouterr().err


def test_no_command_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1
