"""Shared fixtures: a teacher that is trained once a session, and runs that are over in a blink."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.run import DistillationRun

COVERAGE_REQUIRED = 90.0


def pytest_configure(config: pytest.Config) -> None:
    """Demand the coverage of the whole suite only where the whole suite runs."""
    whole_suite = config.args == config.getini("testpaths") and not config.option.keyword and not config.option.markexpr
    coverage = config.pluginmanager.getplugin("_cov")
    if whole_suite and coverage is not None:
        coverage.options.cov_fail_under = COVERAGE_REQUIRED


@pytest.fixture(scope="session", autouse=True)
def teacher_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the user's cache out of the tests."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("RLKD_CACHE")
    os.environ["RLKD_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["RLKD_CACHE"]
    else:
        os.environ["RLKD_CACHE"] = before


@pytest.fixture(scope="session")
def digits_teacher(teacher_cache: Path) -> torch.nn.Module:
    """The default teacher of Digits."""
    return build_run(RunConfig.from_keywords(device="cpu")).teacher


@pytest.fixture
def make_run(digits_teacher: torch.nn.Module) -> Callable[..., DistillationRun]:
    """Build a run on Digits, of 3 epochs of 4 updates unless told otherwise."""

    def make(**settings: object) -> DistillationRun:
        return build_run(RunConfig.from_keywords(**{"epochs": 3, "device": "cpu", **settings}), teacher=digits_teacher)

    return make
