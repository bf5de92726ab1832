"""Somebody's own code runs only if the user names it: no file, whatever it says, starts any."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import distill
from experiments.cli import main
from experiments.config import DistillConfig
from rlkd_env.errors import UsageError
from rlkd_env.utils.registry import import_outside
from rlkd_env.utils.trust import believing, module_paths, trusted_paths

TRACE = "was-run"
CODE = f"""
from pathlib import Path
Path({TRACE!r}).touch()
from torch import nn
from agents.rules import Rule
from rlkd_env.methods import KD
def network(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
def data(train): return None
class Method(KD): ...
"""
QUICK = ["--epochs", "1", "--no-progress", "--device", "cpu", "--rule", "fixed", "--no-tensorboard"]
_numbers = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder that leaves a trace when it is imported, under a name that no test had before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"foreign_code_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text(CODE)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "teacher.pth")
    return name


SHELL = {"cmd": f"touch {TRACE}"}
SETTINGS: list[dict[str, Any]] = [
    {"student": "subprocess:getoutput", "student_options": SHELL},
    {"student": "subprocess:sys.modules", "student_options": SHELL},
    {"student": "{module}:network"},
    {"student": "{module}:Path", "student_options": {"args": TRACE}},
    {"teacher": "teacher.pth", "teacher_model": "subprocess:getoutput", "teacher_options": SHELL},
    {"teacher": "teacher.pth", "teacher_model": "{module}:network"},
    {"dataset": "{module}:data"},
    {"method": "{module}:Method"},
    {"reward": "{module}:reward"},
    {"features": ["teacher_performance", "{module}:feature"]},
    {"rule": "{module}:Rule"},
    {"rule": None, "agent": "ppo", "calibrator": "{module}:Calibrator"},
    {"rule": None, "agent": "{module}:Agent"},
    {"rule": None, "agent": "ppo", "around": "{module}:Rule"},
]


def _fill(value: Any, module: str) -> Any:
    return json.loads(json.dumps(value).replace("{module}", module))


def _resumed(settings: dict[str, Any]) -> list[str]:
    folder = Path("run")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**DistillConfig().settings(), **settings}))
    return ["distill", "--resume", "--out", "run", "--no-progress"]


def _validated(settings: dict[str, Any]) -> list[str]:
    told = {**DistillConfig().settings(), **settings}
    summary = {"settings": told, "student_sha256": "0" * 64, "threads": 1, "device": "cpu"}
    Path("summary.json").write_text(json.dumps(summary))
    return ["validate", "summary.json", "--no-progress"]


def _configured(settings: dict[str, Any]) -> list[str]:
    Path("config.json").write_text(json.dumps({"rule": "fixed", **settings}))
    return ["distill", "--config", "config.json", "--epochs", "1", "--no-progress", "--out", "run"]


def _benched(settings: dict[str, Any]) -> list[str]:
    Path("config.json").write_text(json.dumps(settings))
    return [
        "bench",
        "--config",
        "config.json",
        "--rounds",
        "1",
        "--steps",
        "1",
        "--out",
        "run",
        "--arms",
        "fixed",
    ]


def _compared(settings: dict[str, Any]) -> list[str]:
    Path("plan.yaml").write_text(json.dumps({"arms": {"mine": settings}, "seeds": 1, "epochs": 1}))
    return ["compare", "--config", "plan.yaml", "--executor", "serial", "--no-progress", "--out", "run"]


def _compared_in_an_escape(settings: dict[str, Any]) -> list[str]:
    """Options inside of options are read twice, so that a path may be spelled in a way that no search finds."""
    escaped = json.dumps(settings).replace(":", "\\u003a").replace('"\\u003a', '":')
    Path("plan.yaml").write_text(json.dumps({"arms": {"mine": escaped}, "seeds": 1, "epochs": 1}))
    return ["compare", "--config", "plan.yaml", "--executor", "serial", "--no-progress", "--out", "run"]


def _trained_on(settings: dict[str, Any]) -> list[str]:
    runs = {key: value for key, value in settings.items() if key not in ("rule", "agent", "around", "calibrator")}
    entry = {"name": "one", "seeds": [0, 1], "epochs": 1, **runs}
    Path("instances.yaml").write_text(json.dumps({"train": [entry]}))
    return ["train-agent", "--instances", "instances.yaml", "--num-runs", "4", "--updates", "1", "--out", "run"]


WAYS: list[Callable[[dict[str, Any]], list[str]]] = [
    _validated,
    _configured,
    _benched,
    _compared,
    _compared_in_an_escape,
    _trained_on,
]
CASES = [(_resumed, settings) for settings in SETTINGS]
CASES += [(way, settings) for way in WAYS for settings in (SETTINGS[0], SETTINGS[5], SETTINGS[7])]


@pytest.mark.parametrize(("way", "settings"), CASES)
def test_no_file_starts_anything(
    way: Callable[[dict[str, Any]], list[str]],
    settings: dict[str, Any],
    module: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(way(_fill(settings, module))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert not Path(TRACE).exists()
    assert sum(line.startswith("rlkd: error: ") for line in lines) == 1
    assert "a file alone never runs any" in lines[-1] or "standard library" in lines[-1], lines


def test_a_teachers_settings_start_nothing(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    for settings in ({"model": f"{module}:network"}, {"dataset": f"{module}:data"}):
        Path("config.json").write_text(json.dumps(settings))
        assert main(["teacher", "--config", "config.json", "--out", "t"]) == 2
        assert "a file alone never runs any" in capsys.readouterr().err
    assert not Path(TRACE).exists()
    assert not Path("t").exists()


@pytest.mark.parametrize("named", ["option", "path", "file"])
def test_what_the_user_names_too_is_believed(named: str, module: str) -> None:
    """The same run is made, resumed and validated; each command must be told anew."""
    path = f"{module}:network"
    assert main(["distill", *QUICK, "--student", path, "--out", "run"]) == 0
    Path("run/summary.json").rename("summary.json")  # as if it had not been finished
    again = {"option": ["--student", path], "path": ["--trust", path], "file": ["--trust", "run/config.json"]}[named]
    assert main(["distill", "--resume", "--out", "run", "--no-progress", *again]) == 0
    if named == "file":
        assert main(["validate", "run", "--no-progress", "--trust", "run/summary.json"]) == 0
    if named == "path":
        assert main(["validate", "run", "--no-progress", "--trust", path]) == 0


def test_a_file_cannot_say_that_it_is_trusted(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"{module}:network"
    Path("config.json").write_text(json.dumps({"student": path, "trust": [path]}))
    assert main(["distill", "--config", "config.json", "--out", "run"]) == 2
    assert "cannot say what is trusted" in capsys.readouterr().err
    Path("plan.yaml").write_text(json.dumps({"arms": {"mine": {"student": path, "trust": [path]}}}))
    assert main(["compare", "--config", "plan.yaml", "--out", "run"]) == 2
    assert "unknown option 'trust'" in capsys.readouterr().err
    assert not Path(TRACE).exists()


@pytest.mark.slow
def test_workers_of_a_comparison_believe_what_its_command_line_says(module: str) -> None:
    options = ["--jobs", "1", "--seeds", "1", "--epochs", "1", "--device", "cpu", "--no-progress", "--out", "run"]
    assert main(["compare", "--student", f"{module}:network", *options]) == 0


def test_in_python_a_config_file_is_believed_as_far_as_the_call_names_it(module: str) -> None:
    Path("config.json").write_text(json.dumps({"method": f"{module}:Method"}))
    options: dict[str, Any] = {"temperature": 4, "epochs": 1, "progress": False, "device": "cpu"}
    with pytest.raises(UsageError, match="a file alone never runs any"):
        distill("auto", "auto", "digits", config="config.json", **options)
    assert not Path(TRACE).exists()
    distill("auto", "auto", "digits", config="config.json", trust="config.json", **options)
    assert Path(TRACE).exists()
    distill("auto", "auto", "digits", method=f"{module}:Method", **options)  # without a file nothing is in question


@pytest.mark.parametrize(
    "path",
    [
        "os:system",
        "subprocess:getoutput",
        "builtins:exec",
        "rlkd_env.utils.files:os.system",
        "pathlib:Path",
        "runpy:run_path",
    ],
)
def test_the_standard_library_is_no_part_whoever_names_it(path: str) -> None:
    with pytest.raises(UsageError, match="standard library"):
        import_outside(path, "network")


@pytest.mark.parametrize("path", ["my-module:make", "../module:make", "module:make()", "a:b:c", ":make", "module:"])
def test_what_is_no_module_path_is_not_imported(path: str) -> None:
    with pytest.raises(UsageError, match=r"package\.module:name"):
        import_outside(path, "network")


def test_module_paths_are_found_wherever_they_stand(tmp_path: Path) -> None:
    told = ["--student=a.b:make", {"x": "{rule: c:Rule}"}, "cuda:0", "3s:0.35s", "https://here", 3]
    assert module_paths(told) == {"a.b:make", "c:Rule"}
    (tmp_path / "run.json").write_text(json.dumps({"student": "d:net", "device": "cuda:0"}))
    assert trusted_paths([str(tmp_path / "run.json"), "e:f"]) == {"d:net", "e:f"}
    for missing in (str(tmp_path), str(tmp_path / "missing")):
        with pytest.raises(UsageError, match="no such file"):
            trusted_paths([missing])


def test_nothing_is_believed_beyond_its_context(module: str) -> None:
    with believing(["other:make"]), pytest.raises(UsageError, match="a file alone never runs any"):
        import_outside(f"{module}:network", "network")
    assert callable(import_outside(f"{module}:network", "network"))
