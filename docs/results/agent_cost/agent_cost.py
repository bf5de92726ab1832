"""What does PPO cost the host in every KD step on a GPU, with how many threads, and with its networks on which device?

ResNet56 teaches ResNet20 on random images of CIFAR's size; the time of the environment's steps is not the agent's. The
arms take turns, round after round, after a round for warming up. ``agent_cost.csv`` gets a row for each round; with
arguments, only for these numbers of slots. A minute on an H100:

    python docs/results/agent_cost/agent_cost.py 64 512 2048 4096
"""

from __future__ import annotations

import csv
import sys
import time
from collections import defaultdict
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from statistics import median

import torch

from agents.recording.timing import PartTimer, TimedVectorEnv
from agents.sb3.make import make_agent
from agents.sb3.threads import HostThreads
from experiments.cli import parse
from experiments.commands.bench.benched_run import build_bench_run
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.wrappers import TemperatureAction

FILE = Path(__file__).parent / "agent_cost.csv"
STEPS, ROUNDS = 16, 4
ARMS = {"CPU, all threads": ("cpu", False), "CPU": ("cpu", True), "GPU": ("cuda", True)}
"""Where the agent's networks are, and whether the threads of the host are kept few."""


class Arm:
    """A run with an agent that learns."""

    def __init__(self, slots: int, device: str, has_few_threads: bool) -> None:
        options = ("--random-images", "--student", "resnet20", "--batch-size", str(slots))
        self._run = build_bench_run(parse(["bench", *options]))
        self._timer, self._slots, self._has_few_threads = PartTimer(), slots, has_few_threads
        env = TemperatureAction(TimedVectorEnv(KDVectorEnv(run=self._run), self._timer))
        self._agent = make_agent("ppo", env, calibrator="uniform", seed=0, device=device)

    def measure(self) -> dict[str, float]:
        """Return microseconds a step."""
        self._timer.seconds.clear()
        threads = HostThreads(self._run.device) if self._has_few_threads else nullcontext()
        with self._timer.part("agent"), threads as callback:
            self._agent.learn(STEPS * self._slots, callback=callback, reset_num_timesteps=False)
        return {f"{name}_us": 1e6 * seconds / STEPS for name, seconds in self._timer.seconds.items()}


def measure(slots: int) -> list[dict[str, object]]:
    """Return the rows of a number of slots."""
    arms = {name: Arm(slots, *options) for name, options in ARMS.items()}
    machine = {"gpu": torch.cuda.get_device_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    rows = []
    for number in range(ROUNDS + 1):
        for name, arm in arms.items():
            found = arm.measure()
            if number:
                rows.append({"slots": slots, "arm": name, "round": number, **found, **machine})
    return rows


@cache
def costs() -> dict[tuple[int, str], list[float]]:
    """Return the agent's microseconds a step, round by round, by slots and arm."""
    found = defaultdict(list)
    with FILE.open() as file:
        for row in csv.DictReader(file):
            found[int(row["slots"]), row["arm"]].append(float(row["agent_us"]))
    return dict(found)


def summary(slots: int, arm: str) -> tuple[float, float, float]:
    """Return median, least and greatest milliseconds of agent a step."""
    milliseconds = [value / 1e3 for value in costs()[slots, arm]]
    return median(milliseconds), min(milliseconds), max(milliseconds)


def main() -> None:
    """Measure and write the file."""
    started, rows = time.monotonic(), []
    for slots in map(int, sys.argv[1:] or ("64", "512", "2048", "4096")):
        rows += measure(slots)
        torch.cuda.empty_cache()
        print(f"{slots} slots, {time.monotonic() - started:.0f} s")
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
