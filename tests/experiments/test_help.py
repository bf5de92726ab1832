"""``--help`` shows what most people need, ``--help-all`` every option."""

from __future__ import annotations

import pytest

from experiments.cli import _COMMANDS, main
from experiments.help import COMMON


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["", *_COMMANDS])
def test_a_short_help_is_short(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, *filter(None, [command]), "--help").splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 82
    assert lines[0].startswith("usage: rlkd")


@pytest.mark.parametrize("command", _COMMANDS)
def test_the_whole_help_names_every_option_with_its_text(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, command, "--help-all")
    for option in _COMMANDS[command].option_names():
        assert f"--{option.replace('_', '-')}" in text or option in ("summary", "folder"), option
    assert "{None}" not in text
    assert "STR [STR" not in text


@pytest.mark.parametrize("command", COMMON)
def test_the_short_help_names_options_that_there_are(command: str) -> None:
    assert COMMON[command].keys() <= {*_COMMANDS[command].option_names()}


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    from rlkd_env import __version__

    assert shown(capsys, "--version") == f"rlkd {__version__}\n"


def test_a_mistyped_command_is_met_with_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distil"]) == 2
    assert "Did you mean 'distill'?" in capsys.readouterr().err
