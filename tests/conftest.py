"""One thread a test, shared fixtures (a teacher that is trained once), and runs that are over in a blink."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # of the processes that tests start, too

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.run import DistillationRun

torch.set_num_threads(1)

COVERAGE_REQUIRED = 90.0


def pytest_configure(config: pytest.Config) -> None:
    """Measure and demand the coverage of the whole suite, and only where the whole suite runs."""
    whole_suite = config.args == config.getini("testpaths") and not config.option.keyword and not config.option.markexpr
    coverage = config.pluginmanager.getplugin("_cov")
    if coverage is None or coverage.options.no_cov:
        return
    if whole_suite:
        coverage.options.cov_fail_under = COVERAGE_REQUIRED
        return
    coverage.options.no_cov = True
    if coverage.cov_controller is not None:
        coverage.cov_controller.cov.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run the whole suite or a folder with a worker a core, and files named one by one without workers."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    files_alone = all(Path(argument.partition("::")[0]).is_file() for argument in config.args)
    return 0 if files_alone else os.cpu_count()


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session that all its workers share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def make_once(common_folder: Path) -> Callable[[str, Callable[[Path], None]], Path]:
    """Return a folder that the first worker to ask for it fills; the others wait until it is complete."""

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder, made = common_folder / "made" / name, common_folder / "made" / f"{name}.made"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not made.exists():
                fill(folder)
                made.touch()
        return folder

    return make


@pytest.fixture(scope="session", autouse=True)
def teacher_cache(common_folder: Path) -> Iterator[Path]:
    """Keep the user's cache out of the tests; the cache's own lock lets one worker train a teacher for all."""
    folder = common_folder / "cache"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RLKD_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def digits_teacher(teacher_cache: Path) -> torch.nn.Module:
    """The default teacher of Digits."""
    return build_run(RunConfig.from_keywords(device="cpu")).teacher


@pytest.fixture
def make_run(digits_teacher: torch.nn.Module) -> Callable[..., DistillationRun]:
    """Build a run on Digits, of 3 epochs of 4 updates unless told otherwise, perhaps of given networks."""

    def make(networks: dict[str, Any] | None = None, **settings: Any) -> DistillationRun:
        settings = {"epochs": 3, "device": "cpu", **settings}
        teacher = digits_teacher if settings["device"] == "cpu" else copy.deepcopy(digits_teacher)
        return build_run(RunConfig.from_keywords(**settings), **(networks or {"teacher": teacher}))

    return make
