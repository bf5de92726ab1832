"""Wrong options of every command: refused in a line, before any folder is touched or data are loaded."""

from __future__ import annotations

import math
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest

from experiments.cli import _COMMANDS, main
from rlkd_env.utils.options import LARGEST, Bounds, Options, TemperatureText, hints_of

NEEDED = {"validate": ["nowhere"], "report": ["nowhere"]}
"""Positional arguments of commands; what they name is looked for after the options are read."""


def numeric_options() -> list[tuple[str, str, Any]]:
    """Return every numeric option of every command: the command, the option's flag and its type."""

    def walk(kind: type[Options]) -> Iterator[tuple[str, Any]]:
        for name, hint in hints_of(kind).items():
            if isinstance(hint, type) and issubclass(hint, Options):
                yield from walk(hint)
            elif wrong_values(hint):
                yield f"--{name.replace('_', '-')}", hint

    return [(command, flag, hint) for command, kind in _COMMANDS.items() for flag, hint in walk(kind)]


def wrong_values(hint: Any) -> list[str]:
    """Return texts that are no values of a type, as it says itself; none for a type that is not numeric."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        if any(isinstance(note, TemperatureText) for note in arguments[1:]):
            return ["nan", "inf", "0", "-1", "hot", "2ss", "nans", "1e400s"]
        found = wrong_values(arguments[0])
        is_whole = int in (arguments[0], *get_args(arguments[0]))
        return found + [text for note in arguments[1:] if isinstance(note, Bounds) for text in outside(note, is_whole)]
    if origin in (Union, types.UnionType):
        members = [member for member in arguments if member is not type(None)]
        return wrong_values(members[0]) if len(members) == 1 else []
    if origin is tuple:
        count = 1 if arguments[-1] is Ellipsis else len(arguments)
        return [" ".join([value] * count) for value in wrong_values(arguments[0])]
    if hint is int:
        return ["nan", "inf", "1.5", "1e3", "many", "0x10", str(LARGEST + 1), str(-LARGEST - 1), "9" * 5000]
    return ["nan", "inf", "-inf", "1e400", "much", "1,5"] if hint is float else []


def outside(bounds: Bounds, is_whole: bool) -> Iterator[str]:
    """Yield numbers just beyond bounds."""
    low, high = (bounds.at_least, bounds.above), (bounds.at_most, bounds.below)
    for bound, is_within in (*zip(low, (True, False), strict=True), *zip(high, (True, False), strict=True)):
        if bound is None:
            continue
        if not is_within:
            yield f"{bound:g}"
        elif is_whole:
            yield str(int(bound) + (-1 if bound in low else 1))
        else:
            yield repr(math.nextafter(bound, -math.inf if bound in low else math.inf))


CASES = [
    (command, flag, value) for command, flag, hint in numeric_options() for value in dict.fromkeys(wrong_values(hint))
]
OTHERS = [
    "--device cpu:99",
    "--device meta",
    "--device nosuch",
    "--warmup-epochs 100000",
    "--agent ppo --agent-options device nosuch",
    "--agent ppo --agent-options env x",
    "--agent ppo --agent-options agent x",
    "--agent ppo --agent-options steps_per_phase 1",
    "--agent ppo --agent-options policy nosuch",
    "--agent ppo --agent-options policy_kwargs x",
    "--agent ppo --agent-options learning_rate inf",
    "--agent ppo --agent-options learning_rate abc",
    "--agent ppo --agent-options learning_rate 0",
    "--agent ppo --agent-options gamma 7",
    "--agent ppo --agent-options gae_lambda -1",
    "--agent ppo --agent-options clip_range 0",
    "--agent ppo --agent-options n_steps 0",
    "--agent ppo --agent-options n_steps 1.5",
    "--agent ppo --agent-options batch_size 0",
    "--agent ppo --agent-options n_epochs 0",
    "--agent ppo --agent-options seed -1",
    "--agent ppo --agent-options use_sde 3",
    "--agent ppo --agent-options stats_window_size -1",
    "--agent ppo --agent-options _init_setup_model False",
    "--agent sac --agent-options train_freq 0",
    "--agent sac --agent-options buffer_size 0",
    "--agent sac --agent-options ent_coef -1",
    "--agent sac --agent-options tau 2",
    "--agent td3 --agent-options action_noise 1",
    "--agent td3 --agent-options policy_delay 0",
    "--rule fixed --agent ppo",
    "--agent ppo --policy pretrained",
    "--method-options kd_weight abc",
    "--method-options kd_weight nan",
    "--method-options kd_weight -1",
    "--method-options temperature_squared 3",
    "--method dkd --method-options warmup_epochs 1.5",
    "--method crd --method-options negatives 0",
    "--rule lskd --rule-options tau nan",
    "--rule lskd --rule-options tau abc",
    "--rule linear --rule-options first -1",
    "--student-options num_classes 4",
    "--student-options image_shape 4",
    "--student-options width 4",
    "--teacher-options name x",
    "--out ",
    "--dataset ",
]
"""Wrong options of rlkd distill whose types do not tell what is wrong."""


def few(cases: list[Any], request: pytest.FixtureRequest) -> list[Any]:
    """Return all cases where the attack is asked for by its marker, and a spread of them otherwise."""
    return cases if "attack" in request.config.option.markexpr else cases[:: max(1, len(cases) // 80)]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], folder: Path) -> str | None:
    """Run a command that has to be refused; return what is wrong with how it is told."""
    code = main(arguments)
    told = capsys.readouterr().err
    if code != 2:
        return f"ended with {code}: {told}"
    errors = [line for line in told.splitlines() if line.startswith("rlkd: error: ")]
    if errors != told.splitlines()[-1:] or "Traceback" in told:
        return f"told as {told!r}"
    return "left something behind" if list(folder.iterdir()) else None


def arguments_of(command: str, flag: str, value: str) -> list[str]:
    words = value.split(" ")
    chosen = [f"{flag}={words[0]}"] if len(words) == 1 else [flag, *words]
    return [command, *NEEDED.get(command, []), *chosen]


@pytest.mark.attack
def test_wrong_numbers_are_refused_before_anything_is_done(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tally: Counter[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"{name} was reached"))
    wrong = {}
    for command, flag, value in few(CASES, request):
        tally["wrong command lines"] += 1
        if (reason := refused(arguments_of(command, flag, value), capsys, tmp_path)) is not None:
            wrong[command, flag, value[:20]] = reason
    assert wrong == {}


def test_every_command_that_has_numbers_is_in_the_table() -> None:
    assert {command for command, _, _ in CASES} == {*_COMMANDS} - {"report", "export", "evaluate"}
    assert len(CASES) > 1000


@pytest.mark.attack
@pytest.mark.parametrize("options", OTHERS)
def test_other_wrong_options_are_refused(
    options: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tally: Counter[str],
) -> None:
    tally["wrong command lines"] += 1
    monkeypatch.chdir(tmp_path)
    given = options.split(" ")
    out = [] if "--out" in given else ["--out", "run"]
    device = [] if "--device" in given else ["--device", "cpu"]
    assert refused(["distill", *device, *out, *given], capsys, tmp_path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("preset: nosuch", "unknown preset 'nosuch'"),
        ("config: other.yaml", "names another config"),
        ("out: ''", "out must be text"),
        ('{"out": "a\\u0000b"}', "out must be text"),
        ("method_options: {kd_weight: .nan}", "must be finite"),
        ("method_options: {kd_weight: 2020-01-01}", "must be a number, True or False, or text"),
        ("agent_options: {n_steps: [1, .inf]}", "must be finite"),
    ],
)
def test_wrong_options_in_files_are_refused(
    content: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content)
    assert main(["distill", "--config", str(file)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [file]
