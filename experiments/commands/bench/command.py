"""``rlkd bench``: measures a KD step, plain and with everything that sets temperatures, in interleaved rounds."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.utils.performance import benchmark_vector_step
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.commands.bench.arms import ARMS, DEFAULT_ARMS, Arm, build_bench_run, cost_by_part
from experiments.config import BenchConfig
from experiments.session.provenance import versions
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.utils.files import write_json

BENCH_FILE = "bench.json"
BASELINE = "plain_kd"


def run_bench(config: BenchConfig) -> int:
    """Measure the arms and write ``bench.json``."""
    options = config.bench
    folder = Path(options.out)
    if (folder / BENCH_FILE).exists() and not options.overwrite:
        raise UsageError(f"{folder} holds another measurement: add --overwrite to replace it")
    for name in options.arms:
        if name not in ARMS:
            raise unknown_name("arm", name, ARMS)
    names = list(dict.fromkeys((BASELINE, *(options.arms or DEFAULT_ARMS))))
    seconds = _interleave({name: ARMS[name](config) for name in names}, options.rounds, options.steps)
    arms = {name: _metrics(times, seconds[BASELINE], config) for name, times in seconds.items()}
    if options.memory:
        for name, metrics in arms.items():
            metrics["peak_memory_mb"] = _peak_memory(name, config)
    run = build_bench_run(config)
    result = {
        "arms": arms,
        "parts_ms": cost_by_part(run, options.steps),
        "gymnasium_vector_steps_per_s": benchmark_vector_step(KDVectorEnv(run=run), target_duration=2, seed=0),
        "settings": config.settings(),
        "engine": str(run.task.engine),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "cpu",
        "versions": versions(),
    }
    write_json(folder / BENCH_FILE, result)
    _print_tables(result, folder)
    return 0


def _interleave(arms: dict[str, Arm], rounds: int, steps: int) -> dict[str, np.ndarray]:
    """Return each arm's seconds for ``steps`` updates in each round; a first round is for warming up."""
    names = list(arms)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.perf_counter()
            arms[name](steps)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number > 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: np.array(times) for name, times in seconds.items()}


def _metrics(times: np.ndarray, baseline: np.ndarray, config: BenchConfig) -> dict[str, Any]:
    ratios = times / baseline
    steps_per_s = config.bench.steps / float(np.median(times))
    return {
        "step_ms": 1e3 / steps_per_s,
        "steps_per_s": steps_per_s,
        "images_per_s": steps_per_s * config.run.recipe.batch_size,
        "ratio_to_plain_kd": float(np.median(ratios)),
        "ratio_min": float(ratios.min()),
        "ratio_max": float(ratios.max()),
    }


def _peak_memory(name: str, config: BenchConfig) -> float:
    """Return the peak memory in MiB, of a process that does nothing else or of the GPU."""
    if config.run.engine.select_device().type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        ARMS[name](config)(config.bench.steps)
        return torch.cuda.max_memory_allocated() / 2**20
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_memory, (name, config))


def _measure_memory(name: str, config: BenchConfig) -> float:
    arm = ARMS[name](config)
    with suppress(OSError):  # building needs memory for many images at once, whatever the arm: forget that peak
        Path("/proc/self/clear_refs").write_text("5")
    arm(config.bench.steps)
    return _peak_kib() / 1024


def _peak_kib() -> float:
    """Return the process's peak memory in KiB."""
    with suppress(OSError):
        return float(next(row for row in Path("/proc/self/status").open() if row.startswith("VmHWM")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    return peak / (1024 if sys.platform == "darwin" else 1)


def _print_tables(result: dict[str, Any], folder: Path) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file has no width
    table = Table(box=box.SIMPLE, title=f"{result['device']}, {result['threads']} threads")
    for column in ("arm", "ms per step", "images/s", "ratio to plain KD", "peak MiB"):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
    for name, row in result["arms"].items():
        ratio = f"{row['ratio_to_plain_kd']:.3f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        memory = f"{row['peak_memory_mb']:.0f}" if "peak_memory_mb" in row else "–"
        table.add_row(name, f"{row['step_ms']:.2f}", f"{row['images_per_s']:.0f}", ratio, memory)
    console.print(table)
    parts = ", ".join(f"{name} {milliseconds:.2f}" for name, milliseconds in result["parts_ms"].items())
    console.print(f"parts of a step in ms: {parts}", highlight=False)
    slots = f"gymnasium's benchmark_vector_step: {result['gymnasium_vector_steps_per_s']:.0f} slot steps/s"
    console.print(f"{slots}; written to {folder / BENCH_FILE}", highlight=False, soft_wrap=True)
