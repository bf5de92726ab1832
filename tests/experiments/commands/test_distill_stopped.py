"""``rlkd distill --resume``: a stopped run goes on with a rule, and with an agent around one."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.cli import main
from experiments.session.session import DistillSession

AROUND = ("--around", "lskd", "--warmup-epochs", "1")
INSTANCE_CTKD = ("--rule", "ctkd", "--rule-options", "scope", "instance", "curriculum_epochs", "1")


@pytest.mark.parametrize(
    ("options", "epochs", "stopped_after"),
    [
        (("--rule", "ctkd"), 4, 2),
        (INSTANCE_CTKD, 4, 2),
        (("--rule", "random"), 4, 2),
        (AROUND, 13, 5),
        ((*AROUND, "--temperatures", "separate"), 13, 5),
        ((*AROUND, "--learn-interval", "2"), 13, 5),
    ],
    ids=str,
)
def test_a_stopped_run_goes_on_bit_for_bit(
    options: tuple[str, ...], epochs: int, stopped_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["distill", "--agent", "ppo", "--no-progress", "--device", "cpu", "--epochs", str(epochs), *options]
    assert main([*given, "--out", str(tmp_path / "straight")]) == 0
    safe_point = DistillSession.safe_point

    def stop(session: DistillSession) -> None:
        session._interrupts.stop_requested = session.run.epoch >= stopped_after
        safe_point(session)

    with monkeypatch.context() as patched:
        patched.setattr(DistillSession, "safe_point", stop)
        assert main([*given, "--out", str(tmp_path / "stopped")]) == 130
    assert main(["distill", "--out", str(tmp_path / "stopped"), "--resume", "--no-progress"]) == 0
    files = [path.name for path in sorted((tmp_path / "straight").glob("*.safetensors"))]
    assert {"student.safetensors", "student_last.safetensors"} < set(files)
    assert ("policy.safetensors" in files) == ("--around" in options)
    for name in files:
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
