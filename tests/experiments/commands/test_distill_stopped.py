"""``rlkd distill --resume``: a stopped run goes on with a rule, and with an agent around one."""

from __future__ import annotations

from pathlib import Path

import pytest
from by_ppo import by_ppo

from experiments.cli import main
from experiments.session.checkpoints import SafePoints

AROUND = ("--around", "lskd", "--warmup-epochs", "1")
INSTANCE_CTKD = ("--rule", "ctkd", "--rule-options", "scope", "instance", "curriculum_epochs", "1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "epochs", "stopped_after"),
    [
        (("--rule", "ctkd"), 4, 2),
        (INSTANCE_CTKD, 4, 2),
        (("--rule", "random"), 4, 2),
        (AROUND, 13, 5),
        ((*AROUND, "--temperatures", "separate"), 13, 5),
        ((*AROUND, "--learn-interval", "2"), 13, 5),
        ((*AROUND, "--calibrator", "uniform"), 13, 5),
    ],
    ids=str,
)
def test_a_stopped_run_goes_on_bit_for_bit(
    options: tuple[str, ...], epochs: int, stopped_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["distill", "--no-progress", "--device", "cpu", "--epochs", str(epochs), *by_ppo(*options)]
    assert main([*given, "--out", str(tmp_path / "straight")]) == 0
    reach = SafePoints.reach

    def stop(safe_points: SafePoints) -> None:
        if safe_points._parts["run"].epoch >= stopped_after:
            safe_points.stop.ask()
        reach(safe_points)

    with monkeypatch.context() as patched:
        patched.setattr(SafePoints, "reach", stop)
        assert main([*given, "--out", str(tmp_path / "stopped")]) == 130
    assert main(["distill", "--out", str(tmp_path / "stopped"), "--resume", "--no-progress"]) == 0
    files = [path.name for path in sorted((tmp_path / "straight").glob("*.safetensors"))]
    assert {"student.safetensors", "student_last.safetensors"} < set(files)
    assert ("policy.safetensors" in files) == ("--around" in options)
    for name in files:
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
