"""What the README prints must run as printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.cli import parse
from experiments.config import DistillConfig
from rlkd_env.instances.state import FEATURES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_ten_line_example_runs_as_printed(tmp_path: Path) -> None:
    assert len(PYTHON[0].strip().splitlines()) <= 10
    result = subprocess.run(
        [sys.executable, "-c", PYTHON[0]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("[") == 4  # three actions of one number


def test_the_policy_example_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["distill", "--agent", "ppo", "--epochs", "3", "--no-progress", "--device", "cpu"]) == 0
    given = {"student_logits": torch.randn(9, 10), "teacher_logits": torch.randn(9, 10), "labels": torch.arange(9)}
    exec(PYTHON[1], given)
    assert given["temperature"].shape == (9,)


def test_every_command_in_the_readme_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("epochs: 3\n")
    commands = re.findall(r"`(rlkd (?:distill|teacher|compare|train-agent|report|validate) [^`]+)`", README)
    commands += [f"rlkd distill {options}" for options in re.findall(r"`(--[a-z][^`]*)`", README)]
    assert len(commands) >= 12
    for command in commands:
        arguments = shlex.split(command)[1:]
        if "--help" not in arguments:
            parse(arguments)


def test_every_file_and_folder_named_in_the_documents_exists() -> None:
    for document in (ROOT / "README.md", ROOT / "docs" / "design.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), target
    for name in re.findall(
        r"`((?:rlkd_env|agents|experiments|tests)/[\w/.]+)`", README + (ROOT / "docs" / "design.md").read_text()
    ):
        assert (ROOT / name).exists(), name


def test_the_test_command_is_the_one_that_ci_runs() -> None:
    (command,) = re.findall(r"^(pip install .*pytest)", README, flags=re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text().replace(" --quiet", "")
    assert command in script


def test_the_changelog_counts_the_features_of_images_right() -> None:
    assert "eighteen instance features" in (ROOT / "CHANGELOG.md").read_text()
    assert sum(not feature.needs_regions for feature in FEATURES.values()) == 18


def test_the_default_config_is_what_the_readme_says() -> None:
    config = DistillConfig()
    assert str(config.folder) == "runs/digits-kd-pretrained-seed0"
