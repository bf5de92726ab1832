"""Lint, format, types, the direction of imports, and the wheel."""

from __future__ import annotations

import ast
import os
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


def test_mypy_finds_nothing() -> None:
    run("-m", "mypy")


def imported_modules(path: Path) -> set[str]:
    """What a file imports when it runs; not what it imports for its annotations alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


LAYERS = [
    {"registry", "seeds"},
    {"files", "temperature", "outputs", "randomness", "distributed", "shared_norm", "average_precision"},
    {"data", "models"},
    {"engine"},
    {"tasks", "methods", "state", "recipe", "sampler", "teacher_cache"},
    {"teacher", "exploration", "sequence", "coefficients"},
    {"reward", "hooks"},
    {"run"},
    {"shared_run", "parallel"},
    {"config", "rendering", "calibration", "return_decomposition", "residual"},
    {"stepper"},
    {"env", "coefficient_env", "vector_env_checker"},
    {"wrappers"},
]
"""Rooms of rlkd_env from the bottom up; a room imports from those below and from itself."""


def test_imports_inside_the_environment_point_down() -> None:
    level = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
    for path in (ROOT / "rlkd_env").rglob("*.py"):
        room = path.relative_to(ROOT / "rlkd_env").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for module in imported_modules(path):
            parts = module.split(".")
            if parts[0] == "rlkd_env" and len(parts) > 1 and parts[1] != room:
                assert level[parts[1]] < level[room], f"{path.name} imports {module}"


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("rlkd_env", {"agents", "experiments", "stable_baselines3"}), ("agents", {"experiments"})],
)
def test_imports_between_the_packages_go_one_way(package: str, forbidden: set[str]) -> None:
    for path in (ROOT / package).rglob("*.py"):
        roots = {module.split(".")[0] for module in imported_modules(path)}
        assert not roots & forbidden, path


def test_the_run_knows_no_gymnasium() -> None:
    for room in (
        "run",
        "state",
        "reward",
        "temperature",
        "outputs",
        "config",
        "teacher",
        "recipe",
        "exploration",
        "sequence",
    ):
        assert "gymnasium" not in {name.split(".")[0] for name in imported_modules(ROOT / "rlkd_env" / f"{room}.py")}


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
    made = Path("runs", "digits-kd-fixed-seed0")
    assert (tmp_path / made / "summary.json").is_file()
    run("-m", "experiments", "report", str(made), cwd=tmp_path, **site)
    assert (tmp_path / made / "report.html").is_file()
