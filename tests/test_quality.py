"""Lint, format, types, what rooms know of each other, and the wheel."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("rlkd_env", "agents", "experiments")


def run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_ruff_finds_nothing() -> None:
    run("-m", "ruff", "check", ".")


def test_the_code_is_formatted() -> None:
    run("-m", "ruff", "format", "--check", ".")


@pytest.mark.slow
def test_mypy_finds_nothing() -> None:
    run("-m", "mypy")


FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "rlkd_env": (
        ("errors",),
        ("utils",),
        ("data", "models"),
        ("instances",),
        ("tasks", "methods", "sampling"),
        ("training",),
        ("runs",),
        ("credit",),
        ("envs",),
        ("wrappers",),
    ),
    "agents": (("rules",), ("learned",), ("sb3", "recording")),
    "experiments": (
        ("shadowing", "signals", "threads"),
        ("config",),
        ("next_command",),
        ("session",),
        ("compare", "api"),
        ("report",),
        ("commands",),
        ("parsing", "help"),
        ("cli",),
        ("__main__",),
    ),
}
"""The rooms of each package from the bottom up: a room imports from those below it and from itself.

Rooms of one floor do not know each other. The package's own ``__init__`` stands on top of all.
"""
MOST_ROOMS = 22
MOST_FILES = 12


def module_files() -> dict[str, Path]:
    """The product's files by the names that they are imported under."""
    files = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


FILES = module_files()


def imported_names(path: Path) -> set[str]:
    """What a file imports anywhere, for its annotations or inside a function too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_of_files() -> dict[str, set[str]]:
    """The product's files that each of them imports; a name of a package that is no file is its ``__init__``'s."""

    def file_of(name: str) -> str:
        return name if name in FILES else name.rpartition(".")[0]

    return {module: {file_of(name) for name in imported_names(path)} & FILES.keys() for module, path in FILES.items()}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_no_files_import_each_other_in_a_circle() -> None:
    imports = {module: imported - {module} for module, imported in imports_of_files().items()}
    graphlib.TopologicalSorter(imports).prepare()  # raises a CycleError that names the circle


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_has_a_floor(package: str) -> None:
    rooms = {room_of(module) for module in FILES if module.startswith(f"{package}.")}
    assert rooms == {room for rooms in FLOORS[package] for room in rooms}


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_import_from_lower_floors_only(package: str) -> None:
    height = {room: floor for floor, rooms in enumerate(FLOORS[package]) for room in rooms} | {"": len(FLOORS[package])}
    upward = [
        f"{module} imports {name}"
        for module, imported in imports_of_files().items()
        for name in imported
        if module.split(".")[0] == name.split(".")[0] == package
        and room_of(module) != room_of(name)
        and height[room_of(module)] <= height[room_of(name)]
    ]
    assert not upward


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("rlkd_env", {"agents", "experiments", "stable_baselines3", "sb3_contrib"}),
        ("agents", {"experiments"}),
    ],
)
def test_imports_between_the_packages_go_one_way(package: str, forbidden: set[str]) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert not {name.split(".")[0] for name in imported_names(path)} & forbidden, path


def test_the_run_and_all_below_it_know_no_gymnasium() -> None:
    floors = FLOORS["rlkd_env"]
    below = {room for rooms in floors[: floors.index(("runs",)) + 1] for room in rooms}
    for module, path in FILES.items():
        if module.startswith("rlkd_env.") and room_of(module) in below:
            assert "gymnasium" not in {name.split(".")[0] for name in imported_names(path)}, path


def folders() -> list[Path]:
    """The product's folders, but for what Python leaves in them."""
    found = [ROOT / package for package in PACKAGES]
    found += [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_dir()]
    return [path for path in found if "__pycache__" not in path.parts]


def test_there_are_few_rooms() -> None:
    rooms = [path for path in folders() if path.parent.parent == ROOT and any(path.glob("*.py"))]
    assert len(rooms) <= MOST_ROOMS


def test_there_are_few_files_in_each_folder() -> None:
    counts = {folder: sum(path.is_file() for path in folder.iterdir()) for folder in folders()}
    presets_of_methods = ROOT / "experiments" / "presets" / "distill" / "methods"
    assert {folder for folder, count in counts.items() if count > MOST_FILES} <= {presets_of_methods}


def test_every_room_says_in_one_sentence_what_lives_there() -> None:
    said = {
        folder: ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        for folder in folders()
        if any(folder.glob("*.py")) and folder.parent != ROOT
    }
    ends = {folder: re.findall(r"[.!?](?=\s|$)", text) for folder, text in said.items()}
    assert not {str(folder.relative_to(ROOT)) for folder, found in ends.items() if found != ["."]}


CROSS_CUTTING = {
    "agents/sb3/calibrated_learning",
    "experiments/commands/distill_around",
    "experiments/commands/distill_changed_student",
    "experiments/commands/distill_detection",
    "experiments/commands/distill_outside_parts",
    "experiments/commands/distill_own_data",
    "experiments/commands/distill_population",
    "experiments/commands/distill_rules",
    "experiments/commands/distill_stopped",
    "experiments/report/committed_results",
    "rlkd_env/envs/copies",
    "rlkd_env/envs/fuzzing",
    "rlkd_env/envs/separate_temperatures",
    "rlkd_env/envs/several_runs",
    "rlkd_env/envs/stock_wrappers",
    "rlkd_env/methods/detection/detection_runs",
    "rlkd_env/methods/detection/losses_of_proposals",
    "rlkd_env/methods/method_runs",
    "rlkd_env/methods/relations/similarities",
    "rlkd_env/runs/parallel/equality",
    "rlkd_env/runs/parallel/policies",
    "rlkd_env/tasks/detection/runs",
    "rlkd_env/training/captured/options",
}
"""Tests of whole commands, and of what several modules do together; attacks, by their kind, are in ``robustness``."""


def test_every_file_of_tests_stands_where_its_module_does() -> None:
    tests = [path.relative_to(ROOT / "tests") for path in (ROOT / "tests").glob("*/**/test_*.py")]
    modules = {path.with_name(path.stem.removeprefix("test_")) for path in tests if path.parts[0] != "robustness"}
    missing = {module for module in modules if not (ROOT / module).with_suffix(".py").is_file()}
    assert {str(module) for module in missing} == CROSS_CUTTING


@pytest.mark.slow
def test_the_built_wheel_runs_outside_the_checkout(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    run("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source), cwd=tmp_path)
    (wheel,) = tmp_path.glob("rlkd-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0] for name in names if not name.startswith("rlkd-")} == set(PACKAGES)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    site = {"PYTHONPATH": str(tmp_path / "site")}
    where = run("-c", "import agents, experiments, rlkd_env; print(rlkd_env.__file__)", cwd=tmp_path, **site)
    assert where.startswith(str(tmp_path / "site"))
    command = ["-m", "experiments", "distill", "--rule", "fixed", "--epochs", "1", "--no-progress", "--device", "cpu"]
    run(*command, cwd=tmp_path, **site)
    made = Path("runs", "digits-kd-fixed-epochs-1-seed0")
    assert (tmp_path / made / "summary.json").is_file()
    run("-m", "experiments", "report", str(made), cwd=tmp_path, **site)
    assert (tmp_path / made / "report.html").is_file()
