"""``rlkd bench``: measures a KD step, plain and with everything that sets temperatures, in interleaved rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.utils.performance import benchmark_vector_step
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.commands.bench.arms import ARMS, DEFAULT_ARMS, Bench, arms_called
from experiments.commands.bench.benched_run import build_bench_run
from experiments.commands.bench.floor import FLOOR, launch_free_floor
from experiments.commands.bench.learning import best_agent, measure_learning, print_learning
from experiments.commands.bench.memory import forget, process_memory
from experiments.commands.bench.parts import cost_by_part
from experiments.commands.bench.pipeline import measure_pipeline
from experiments.commands.bench.rounds import Arm, Budget, LeftOut, Rounds, measure_in_turns
from experiments.config import BenchConfig
from experiments.next_command import distill_words, tell_next
from experiments.session.folder import check_measurement, measuring
from experiments.session.provenance import versions
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import unknown_name
from rlkd_env.utils.files import write_json

BENCH_FILE = "bench.json"
BASELINE = "plain_kd"
_SHARE_OF_ROUNDS = 0.8
"""Share of the time for the rounds; the rest is for imports, for the parts of a step and for writing."""


def run_bench(config: BenchConfig) -> int:
    """Measure the arms and write ``bench.json``; return 1 if an arm has failed."""
    options = config.bench
    deadline = time.perf_counter() + _SHARE_OF_ROUNDS * options.seconds
    folder = Path(options.out)
    check_measurement(folder / BENCH_FILE, options.overwrite)
    with measuring(folder / BENCH_FILE, options.overwrite):
        return _measure(config, folder, deadline)


def _measure(config: BenchConfig, folder: Path, deadline: float) -> int:
    """Measure what the options ask for, in a folder of our own."""
    options = config.bench
    if options.learning:
        learning = measure_learning(options.arms, options.rounds)
        content = {"learning": learning, "settings": config.settings(), "versions": versions()}
        write_json(folder / BENCH_FILE, content)
        print_learning(learning, _console())
        tell_next("rlkd", "distill", "--agent", best_agent(learning))
        return 0
    names = arms_called(options.arms or DEFAULT_ARMS)
    for name in names:
        if name not in ARMS:
            raise unknown_name("arm", name, ARMS)
    if options.data:
        pipeline = measure_pipeline(config, _SHARE_OF_ROUNDS * options.seconds)
        write_json(folder / BENCH_FILE, {"pipeline": pipeline, "settings": config.settings(), "versions": versions()})
        _print_pipeline(pipeline, folder)
        rates = pipeline["read_images_per_s"]
        tell_next(*_distill_words(config, not pipeline["is_made_up"], workers=str(max(rates, key=rates.get))))
        return 0
    bench = Bench(config, build_bench_run(config))
    measurement = Measurement(bench, deadline)
    measurement.run([name for name in names if name != BASELINE])
    run = bench.started_run()
    result = {
        "arms": measurement.figures(),
        "left_out": measurement.left_out,
        "failed": measurement.failed,
        "parts_ms": cost_by_part(run),
        "gymnasium_vector_steps_per_s": benchmark_vector_step(KDVectorEnv(run=run), target_duration=1, seed=0),
        "settings": config.settings(),
        "updates": run.update.why_plain or "captured as CUDA graphs",
        "engine": str(run.task.engine),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "cpu",
        "versions": versions(),
    }
    write_json(folder / BENCH_FILE, result)
    _print_tables(result, folder)
    tell_next(*_distill_words(config, not options.random_images))
    return 1 if measurement.failed else 0


def _distill_words(config: BenchConfig, has_data: bool, **added: str) -> list[str]:
    """Return the words of the command that makes the benched run; on made-up images there is none, so any run."""
    chosen = {**config.agent.as_keywords(), **config.run.as_keywords()} if has_data else {}
    return distill_words(chosen, config.bench.preset if has_data else None, **added)


class Measurement:
    """Times one arm after the other beside plain KD, so that at most one arm holds memory beside it."""

    def __init__(self, bench: Bench, deadline: float) -> None:
        self._bench, self._deadline = bench, deadline
        self._device = bench.template.device
        self._rounds: dict[str, Rounds] = {}
        self._students: dict[str, int] = {}
        self._memory: dict[str, float] = {}
        self.left_out: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        with self._watching_memory(BASELINE):
            self._baseline = ARMS[BASELINE](bench)
            for _, advance in self._baseline.phases:
                advance(1)

    def run(self, names: list[str]) -> None:
        """Measure arms by name, on a GPU after the floor."""
        creators: dict[str, Callable[[], Arm]] = {name: partial(ARMS[name], self._bench) for name in names}
        if self._device.type == "cuda":
            creators = {FLOOR: partial(launch_free_floor, self._bench.template), **creators}
        for number, (name, create) in enumerate(creators.items()):
            now = time.perf_counter()
            fair_end = now + (self._deadline - now) / (len(creators) - number)
            try:
                self._measure(name, create, fair_end)
            except LeftOut as reason:
                self.left_out[name] = str(reason)
            except Exception as error:  # the other arms can still be measured
                self.failed[name] = (str(error).splitlines() or [type(error).__name__])[0]
        forget(self._device)
        if self._bench.config.bench.memory and self._device.type != "cuda":
            for name in (BASELINE, *self._rounds):
                self._memory[name] = process_memory(name, self._bench.config)

    def _measure(self, name: str, create: Callable[[], Arm], fair_end: float) -> None:
        options, device = self._bench.config.bench, self._device
        if options.rounds is None and time.perf_counter() > self._deadline:
            raise LeftOut("the time is over: give more --seconds")
        budget = Budget(fair_end, self._deadline, options.rounds, options.steps)
        with self._watching_memory(name):
            arm = create()
            self._rounds[name] = measure_in_turns(arm, self._baseline, budget, device)
        self._students[name] = arm.students

    @contextmanager
    def _watching_memory(self, name: str) -> Iterator[None]:
        """Note the peak of what is allocated on a GPU beyond what was before, as the memory of an arm."""
        device = self._device
        forget(device)
        if device.type != "cuda":
            yield
            return
        before = torch.cuda.memory_allocated(device)
        yield
        self._memory[name] = (torch.cuda.max_memory_allocated(device) - before) / 2**20

    def figures(self) -> dict[str, dict[str, Any]]:
        """Return the figures of every arm by name."""
        plain = [seconds for rounds in self._rounds.values() for seconds in rounds.baseline]
        found = {BASELINE: self._of(BASELINE, np.array(plain), np.array(plain))} if plain else {}
        for name, rounds in self._rounds.items():
            found[name] = self._of(name, np.array(rounds.arm), np.array(rounds.baseline))
            found[name]["steps_in_a_turn"] = rounds.steps
        if FLOOR in found:
            for row in found.values():
                row["ratio_to_floor"] = row["step_ms"] / row["students"] / found[FLOOR]["step_ms"]
        return found

    def _of(self, name: str, seconds: np.ndarray, baseline: np.ndarray) -> dict[str, Any]:
        """Return an arm's figures from the seconds of an update, round by round; ratios are those of one student."""
        students = self._students.get(name, 1)
        ratios, step = seconds / students / baseline, float(np.median(seconds))
        memory = {"peak_memory_mb": self._memory[name]} if name in self._memory else {}
        return {
            "step_ms": 1e3 * step,
            "steps_per_s": 1.0 / step,
            "students": students,
            "images_per_s": students * self._bench.config.run.recipe.batch_size / step,
            "ratio_to_plain_kd": float(np.median(ratios)),
            "ratio_min": float(ratios.min()),
            "ratio_max": float(ratios.max()),
            "rounds": len(seconds),
            **memory,
        }


def _print_pipeline(pipeline: dict[str, Any], folder: Path) -> None:
    console = _console()
    shape = " x ".join(map(str, pipeline["image_shape"]))
    console.print(f"{pipeline['dataset']}, {shape}, batches of {pipeline['batch_size']}", highlight=False)
    table = Table(box=box.SIMPLE)
    for column in ("workers", "images/s read", "a worker"):
        table.add_column(column, justify="right", no_wrap=True)
    for workers, rate in pipeline["read_images_per_s"].items():
        table.add_row(str(workers), f"{rate:.0f}", f"{rate / workers:.0f}")
    console.print(table)
    stages = ", ".join(f"{name} {rate:.0f}" for name, rate in pipeline["device_images_per_s"].items())
    console.print(
        f"images/s on the device: {stages}; written to {folder / BENCH_FILE}", highlight=False, soft_wrap=True
    )


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file has no width
    return console


def _print_tables(result: dict[str, Any], folder: Path) -> None:
    console = _console()
    rows = result["arms"]
    has_floor, has_memory = FLOOR in rows, any("peak_memory_mb" in row for row in rows.values())
    columns = ["ms per step", "images/s", "ratio to plain KD"]
    columns += ["to the floor"] * has_floor + ["peak MiB"] * has_memory
    table = Table(box=box.SIMPLE, title=f"{result['device']}, {result['threads']} threads")
    table.add_column("arm", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in rows.items():
        cells = [f"{row['step_ms']:.2f}", f"{row['images_per_s']:.0f}"]
        cells.append(f"{row['ratio_to_plain_kd']:.3f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})")
        cells += [f"{row['ratio_to_floor']:.2f}"] if has_floor else []
        cells += [f"{row['peak_memory_mb']:.0f}" if "peak_memory_mb" in row else "–"] if has_memory else []
        table.add_row(name, *cells)
    console.print(table)
    for kind in ("left_out", "failed"):
        for name, reason in result[kind].items():
            console.print(f"{name} {kind.replace('_', ' ')}: {reason}", highlight=False, markup=False, soft_wrap=True)
    if result["device"] != "cpu":
        console.print(f"updates of runs: {result['updates']}", highlight=False)
    parts = ", ".join(f"{name} {milliseconds:.2f}" for name, milliseconds in result["parts_ms"].items())
    console.print(f"parts of a step in ms: {parts}", highlight=False)
    slots = f"gymnasium's benchmark_vector_step: {result['gymnasium_vector_steps_per_s']:.0f} slot steps/s"
    console.print(f"{slots}; written to {folder / BENCH_FILE}", highlight=False, soft_wrap=True)
