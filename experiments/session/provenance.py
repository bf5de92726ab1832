"""What a summary says beside its figures: the versions and the processor it was made with, and its metric."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

ACCURACY = "accuracy"
"""The metric of classifiers; detectors have AP. Every figure that a file calls accuracy is in its run's metric."""
_PACKAGES = ("rlkd", "torch", "gymnasium", "stable-baselines3", "sb3-contrib", "numpy")


def metric_of(summary: Mapping[str, Any] | None) -> str:
    """Return the metric that a summary, or the statistics of a task, names; accuracy if none is named."""
    return str((summary or {}).get("metric", ACCURACY))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def processor(device: torch.device) -> str:
    """Return what a device's rounding follows from: the GPU's name, or the CPU's with the instructions it uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        if model := re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE):
            return f"{model.group(1)}, {torch.backends.cpu.get_cpu_capability()}"
    return f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
