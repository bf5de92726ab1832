"""``rlkd bench --learning``: what every agent learns within a run, on a toy whose best temperatures are known."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from agents.sb3.families import AGENTS, check_learns_within
from agents.sb3.make import make_agent
from agents.sb3.wrapping import NOT_SHARED_OUT, SHARED_OUT
from experiments.commands.bench.toy import UPDATES, KnownBestTemperatures, best_log_temperature, log_temperature
from rlkd_env.errors import unknown_name

_SEEDS = 3
_SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "shared_reward": {"calibrator": NOT_SHARED_OUT},
    "shared_reward_discount_0.99": {"calibrator": NOT_SHARED_OUT, "gamma": 0.99},
}
"""How agents are made: as they are by default, and without what the defaults are for."""
_STATES = 4096


def measure_learning(agents: tuple[str, ...], rounds: int | None) -> dict[str, Any]:
    """Let agents learn on the toy, each for one run of 480 updates of 64 slots, and measure what they have learned.

    Args:
        agents: their names; none means all that can learn within a run.
        rounds: number of seeds, 0 and up; None means 3.

    Returns:
        ``constant``, the error of the best constant temperature, and for each agent and setting the errors in log T of
        its policy without exploration at the run's end, the root of their mean square over instances, one a seed, and
        the mean ``seconds`` of a run.

    Raises:
        UsageError: if there is no agent of a name, or it cannot learn within a run.
    """
    usable = [name for name in sorted(AGENTS) if AGENTS[name].why_not_within is None]
    for name in agents:
        if name not in AGENTS:
            raise unknown_name("agent", name, usable)
        check_learns_within(name)
    chosen, seeds = list(agents) or usable, range(rounds or _SEEDS)
    found: dict[str, Any] = {name: {} for name in chosen}
    for setting, options in _SETTINGS.items():
        for name in chosen:
            begun = time.perf_counter()
            errors = [error_after_a_run(name, seed, **options) for seed in seeds]
            seconds = (time.perf_counter() - begun) / len(seeds)
            found[name][setting] = {"errors": errors, "seconds": seconds}
    best = best_log_temperature(_states())
    return {"constant": float(best.std()), "calibrator": SHARED_OUT, "updates": UPDATES, "agents": found}


def error_after_a_run(name: str, seed: int, **options: Any) -> float:
    """Return the root mean square error of log T of an agent's policy after it has learned for a run."""
    env = KnownBestTemperatures()
    agent = make_agent(name, env, seed=seed, **options)
    agent.learn(env.num_envs * UPDATES)
    states = _states()
    actions, _ = agent.predict(states, deterministic=True)
    return float(np.sqrt(np.mean((log_temperature(actions[:, 0]) - best_log_temperature(states)) ** 2)))


def _states() -> np.ndarray:
    """Return instances ``(n, 4)`` at the end of a run."""
    states = np.random.default_rng(0).random((_STATES, 4), dtype=np.float32)
    states[:, -1] = 1.0
    return states


def best_agent(result: dict[str, Any]) -> str:
    """Return the agent whose policies are nearest to the best temperatures, as agents are made by default."""
    return min(result["agents"], key=lambda name: float(np.mean(result["agents"][name]["default"]["errors"])))


def print_learning(result: dict[str, Any], console: Console) -> None:
    """Print an agent a row: the errors' mean, and their range over the seeds."""
    title = f"error of log T after {result['updates']} updates; the best constant temperature: {result['constant']:.2f}"
    table = Table(box=box.SIMPLE, title=title)
    table.add_column("agent", no_wrap=True)
    for setting in (*_SETTINGS, "seconds"):
        table.add_column(setting.replace("_", " "), justify="right")
    for name, row in result["agents"].items():
        cells = [
            f"{np.mean(one['errors']):.2f} ({min(one['errors']):.2f} to {max(one['errors']):.2f})"
            for one in row.values()
        ]
        table.add_row(name, *cells, f"{row['default']['seconds']:.1f}")
    console.print(table)
