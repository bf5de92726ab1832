"""Peak memory: of an arm on a GPU while it is timed, and on a CPU of a process that does nothing else."""

from __future__ import annotations

import gc
import multiprocessing
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from experiments.commands.bench.arms import ARMS, Bench
from experiments.commands.bench.benched_run import build_bench_run
from experiments.config import BenchConfig

_STEPS = 32


def forget(device: torch.device) -> None:
    """Give back what nothing refers to any more, and begin to watch a GPU's peak from here on."""
    gc.collect()  # environment, agent and run know each other
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def process_memory(name: str, config: BenchConfig) -> float:
    """Return the peak memory in MiB of a process that makes nothing but an arm's updates."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (name, config))


def _measure(name: str, config: BenchConfig) -> float:
    arm = ARMS[name](Bench(config, build_bench_run(config)))
    with suppress(OSError):  # building needs memory for many images at once, whatever the arm: forget that peak
        Path("/proc/self/clear_refs").write_text("5")
    for _, advance in arm.phases:
        advance(config.bench.steps or _STEPS)
    return _peak_kib() / 1024


def _peak_kib() -> float:
    """Return the process's peak memory in KiB."""
    with suppress(OSError):
        return float(next(row for row in Path("/proc/self/status").open() if row.startswith("VmHWM")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    return peak / (1024 if sys.platform == "darwin" else 1)
