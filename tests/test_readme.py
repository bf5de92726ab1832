"""What the documents print must run as printed, and what they name must exist."""

from __future__ import annotations

import contextlib
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cli import main, parse
from experiments.config import DistillConfig
from rlkd_env.errors import UsageError
from rlkd_env.instances.features import FEATURES

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [document for document in DOCUMENTS if document.parent.name != "reference"]
README = (ROOT / "README.md").read_text()
ENVIRONMENT = (ROOT / "docs" / "tutorials" / "environment.md").read_text()
COMMANDS = (
    "distill",
    "teacher",
    "train-agent",
    "credit",
    "bench",
    "compare",
    "validate",
    "report",
    "evaluate",
    "export",
)


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def blocks(text: str, language: str) -> list[str]:
    """Return the code in a document, less what it says is not run."""
    text = re.sub(r"<!-- not run[^>]*-->\n```.*?```", "", text, flags=re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def write_files(text: str, folder: Path) -> None:
    """Write those code blocks of a document to files whose names a comment before them gives."""
    for name, content in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        (folder / name).write_text(content)


def command_lines(text: str) -> Iterator[list[str]]:
    """Yield the arguments of every ``rlkd`` that a document's shell blocks and sentences hold."""
    lines = re.sub(r"\\\n", " ", "\n".join(blocks(text, "sh"))).splitlines()
    lines += re.findall(
        r"`((?:rlkd|torchrun) [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    )
    for line in lines:
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            if words[:1] == ["rlkd"]:
                yield words[1:]
            elif words[:1] == ["torchrun"]:
                yield words[words.index("experiments") + 1 :]


@pytest.fixture
def beside_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_once: Callable[[str, Callable[[Path], None]], Path]
) -> Path:
    """Work in a folder in which ``rlkd distill`` has been called, alone and with ``--agent ppo``, for three epochs."""

    def fill(folder: Path) -> None:
        with contextlib.chdir(folder) if sys.version_info >= (3, 11) else monkeypatch.context() as patched:
            if patched is not None:
                patched.chdir(folder)
            for options in ([], ["--agent", "ppo"]):
                out = str(DistillConfig.from_keywords(agent=options[1] if options else None).folder)
                run = ["distill", *options, "--epochs", "3", "--no-progress", "--device", "cpu", "--out", out]
                assert main(run) == 0

    shutil.copytree(make_once("runs-of-documents", fill) / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_ten_line_example_runs_as_printed(tmp_path: Path) -> None:
    example = blocks(ENVIRONMENT, "python")[0]
    assert len(example.strip().splitlines()) <= 10
    result = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("[") == 4  # three actions of one number


@pytest.mark.slow
@pytest.mark.parametrize(
    "document", [document for document in WRITTEN if blocks(document.read_text(), "python")], ids=name_of
)
def test_the_examples_run_as_printed(document: Path, beside_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(document.read_text(), beside_runs)
    given: dict[str, Any] = {"__name__": "__main__"}
    for number, example in enumerate(blocks(document.read_text(), "python")):
        exec(compile(example, f"{name_of(document)}, block {number}", "exec"), given)
        printed = capsys.readouterr().out.splitlines()
        for promised in re.findall(r"^ *print\(.*\)  # (.+)$", example, flags=re.MULTILINE):
            assert promised in printed


def test_a_policy_for_ones_own_loop_chooses_a_temperature_for_each_instance(beside_runs: Path) -> None:
    from agents.learned import TemperaturePolicy

    torch = pytest.importorskip("torch")
    policy = TemperaturePolicy.load("runs/digits-kd-ppo-around-anneal-seed0")
    temperature = policy.choose(torch.randn(9, 10), torch.randn(9, 10), torch.arange(9), progress=0.5)
    assert temperature.teacher.shape == temperature.student.shape == temperature.scale(torch.ones(9)).shape == (9,)


@pytest.mark.parametrize("document", WRITTEN, ids=name_of)
def test_every_command_is_understood(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = document.read_text()
    (tmp_path / "run.yaml").write_text("epochs: 3\n")
    (tmp_path / "docs").symlink_to(ROOT / "docs")  # where commands find the files of this checkout
    write_files(text, tmp_path)
    for arguments in command_lines(text):
        if not {"--help", "--help-all"} & {*arguments} and len(arguments) > (arguments[:1] != ["distill"]):
            parse(arguments)
    for options in re.findall(r"`(--[a-z][^`]*)`", text):
        check_options(shlex.split(options), capsys)


def check_options(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Check that some command understands these options, or knows the one that is named alone."""
    if len(options) == 1:
        assert any(re.search(rf"{options[0]}\b", help_of(command, capsys)) for command in ("", *COMMANDS)), options
        return
    for command in COMMANDS:
        with contextlib.suppress(UsageError):
            parse([command, *options])
            return
    parse(["distill", *options])


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    if command not in _HELP:
        with pytest.raises(SystemExit):
            parse([*filter(None, [command]), "--help-all"])
        _HELP[command] = capsys.readouterr().out
    return _HELP[command]


_HELP: dict[str, str] = {}


def shortened(words: list[str]) -> list[str]:
    """Train on images of one's own for one epoch only; they are noise, which a teacher cannot learn."""
    if "mine.npz" not in words:
        return words
    if words[0] == "teacher":
        return ["1" if word == "60" else word for word in words]
    return [*words, "--epochs", "1", "--force"]


@pytest.mark.slow
def test_the_commands_of_the_readme_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As printed, in a fresh folder; only the own images are few, and trained on for one epoch."""
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (120, 8, 8), dtype=np.uint8)
    np.savez("mine.npz", x_train=images, y_train=np.arange(120) % 4)
    commands = list(command_lines("".join(f"```sh\n{block}```\n" for block in blocks(README, "sh"))))
    assert len(commands) >= 8
    for words in map(shortened, commands):
        if words[0] == "board":  # which ends with Ctrl-C
            continue
        assert main(words) == 0, words
        (following,) = re.findall(r"^next: rlkd (.+)$", capsys.readouterr().out, flags=re.MULTILINE)
        parse(shlex.split(following))  # what is offered is understood
    assert len(list(Path("runs").iterdir())) >= 4


def test_the_documents_hold_enough_commands_to_be_worth_a_check() -> None:
    assert sum(len(list(command_lines(document.read_text()))) for document in WRITTEN) >= 60
    assert len(list(command_lines(README))) >= 4


@pytest.mark.parametrize("document", WRITTEN, ids=name_of)
def test_every_file_and_folder_that_is_named_exists(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (document.parent / target).exists(), target
    for name in re.findall(r"`((?:rlkd_env|agents|experiments|tests|docs)/[\w/.-]+)`", text):
        assert (ROOT / name).exists(), name


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_the_test_command_is_the_one_that_ci_runs() -> None:
    (command,) = re.findall(r"^(pip install .*pytest)", README, flags=re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text().replace(" --quiet", "")
    assert command in script


def test_the_changelog_counts_the_features_of_images_right() -> None:
    assert "eighteen instance features" in (ROOT / "CHANGELOG.md").read_text()
    assert sum(not feature.needs_regions for feature in FEATURES.values()) == 18


def test_the_default_config_is_what_the_readme_says() -> None:
    config = DistillConfig()
    assert str(config.folder) == "runs/digits-kd-anneal-seed0"
    assert str(config.folder) in README


def test_the_changelog_says_where_names_are_imported_from() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    rows = re.findall(r"^\| (`.+`) \| `[\w.]+` \| `([\w.]+)` \|$", text, flags=re.MULTILINE)
    moved = [(room, name) for names, room in rows for name in re.findall(r"`(\w+)`", names) if "." not in names]
    assert len(moved) >= 40
    for room, name in moved:
        assert hasattr(importlib.import_module(room), name), f"{room}.{name}"
