"""The scripts in ``examples`` run."""

from __future__ import annotations

import runpy
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
CLIENTS = sorted((ROOT / "examples" / "clients").glob("*.py"))
NEEDED = {
    "sbx_ppo": ("sbx",),
    "tianshou_ppo": ("tianshou", "rliable"),
    "torchrl_collector": ("torchrl",),
    "zoo_train": ("rl_zoo3",),
}
"""The packages of clients that not everybody has."""


@pytest.mark.slow
@pytest.mark.parametrize("script", [*EXAMPLES, *CLIENTS], ids=lambda script: script.stem)
def test_the_example_runs(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in NEEDED.get(script.stem, ()):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), "--small"])
    with warnings.catch_warnings():
        runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_every_client_is_in_the_table_of_clients_with_its_script() -> None:
    text = (ROOT / "docs" / "clients.md").read_text()
    assert len(CLIENTS) == 6
    for script in CLIENTS:
        assert f"`{script.name}`" in text
        assert f"python examples/clients/{script.name}``; ``--small``" in script.read_text()


def test_there_are_five_examples_which_say_how_they_are_run() -> None:
    assert len(EXAMPLES) == 5
    for script in EXAMPLES:
        assert f"python examples/{script.name}``; ``--small``" in script.read_text()
