"""``rlkd credit --rewards``: how well each reward knows what an update has gained on held-out images, and its cost."""

from __future__ import annotations

import copy
import csv
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats

from agents.rules.simple import FixedTemperature
from experiments.config import CreditConfig
from experiments.next_command import distill_words, tell_next
from experiments.session.folder import check_measurement, measuring
from experiments.session.provenance import processor, versions
from rlkd_env.data import ImageSet
from rlkd_env.data.images import MemoryImages
from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ActionMap
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.build import build_run
from rlkd_env.runs.reward import REWARDS, TURN, Measurement, RewardMeter
from rlkd_env.runs.run import DistillationRun
from rlkd_env.tasks import Evaluation
from rlkd_env.training.progress import progress_bar
from rlkd_env.utils.files import write_atomically, write_json

REWARDS_FILE, UPDATES_FILE = "rewards.json", "rewards.csv"
TRUTH, SAME_BATCH = "held_out", "same_batch"
DELAYED, EXACT = "probe_loss, every 8th update", "probe_turns, in float32"
"""Rewards beside the registered ones: the loss of the batch itself, before and after, one that is delayed, and one that
is computed more exactly than training is, if there is a difference."""
_HELD_OUT_IMAGES, _TRIALS, _ROUNDS = 1024, 8, 5
_DELAY = 8

Updates = list[dict[str, float]]


def run_rewards(config: CreditConfig) -> int:
    """Measure all rewards on runs with random temperatures and write ``rewards.json`` and ``rewards.csv``."""
    folder = Path(config.out)
    check_measurement(folder / REWARDS_FILE, config.overwrite)
    run = build_run(config.run)
    run.reward = RewardMeter("train_progress")  # which is free: the others are measured beside it
    with measuring(folder / REWARDS_FILE, config.overwrite):
        return _measure_rewards(run, config, folder)


def _measure_rewards(run: DistillationRun, config: CreditConfig, folder: Path) -> int:
    """Measure, write both files and print what is found."""
    held_out = _held_out_images(run)
    watched = [_follow(run, held_out, config, seed) for seed in range(config.seed, config.seed + config.runs)]
    names = [name for name in watched[0][0][0] if name != TRUTH]
    quality = {name: _quality(watched, name) | _cost(run, name, config.seed) for name in names}
    write_json(
        folder / REWARDS_FILE,
        {
            "rewards": quality,
            "held_out_images": len(held_out),
            "updates": run.total_steps,
            "settings": config.settings(),
            "device": processor(run.device),
            "versions": versions(),
        },
    )
    write_atomically(folder / UPDATES_FILE, _as_csv([updates for updates, _ in watched]))
    _print_table(quality, folder)
    best = max(REWARDS, key=lambda name: np.nan_to_num(quality[name]["pearson"], nan=-1.0))
    tell_next(*distill_words(config.run.as_keywords(), agent="ppo", reward=best))
    return 0


def _held_out_images(run: DistillationRun) -> MemoryImages:
    """Return up to 1,024 images that neither the student trains on nor the rewards look at."""
    images, reserve = run.splits.validation, run.splits.reserve
    if not isinstance(images, MemoryImages) or not isinstance(reserve, MemoryImages | None):
        raise UsageError("the measurement of rewards needs images that are kept in memory")
    if reserve is not None:
        images = replace(reserve.joined(images), preprocessing=images.preprocessing)
    return images.subset(torch.arange(min(len(images), _HELD_OUT_IMAGES)))


def _follow(run: DistillationRun, held_out: ImageSet, config: CreditConfig, seed: int) -> tuple[Updates, list[Updates]]:
    """Follow a run with random temperatures of all instances.

    Returns:
        What every update gained by each reward and on the held-out images, and for each of the points, the same of
        several trials of its update, each at another temperature of the whole batch.
    """
    actions, generator = ActionMap(run.temperature_range), torch.Generator().manual_seed(seed)
    meters = {name: RewardMeter(name) for name in REWARDS} | {DELAYED: RewardMeter("probe_loss", _DELAY)}
    if run.task.engine != run.task.engine.exact:
        meters[EXACT] = RewardMeter("probe_turns")
    run.reset(seed)
    state = _State(run)
    for name, meter in meters.items():
        meter.reset(state.for_reward(name))
    points = {*np.linspace(run.total_steps * 0.1, run.total_steps - 2, config.points).astype(int).tolist()}
    updates, points_trials = [], []

    def draw(count: int) -> Temperature:
        action = 2.0 * torch.rand(count, generator=generator) - 1.0
        return Temperature.shared(actions.to_temperature(action).expand(run.batch_size).to(run.device))

    for step in progress_bar(f"rewards, run {seed}", "update", iterable=range(run.total_steps)):
        if step in points:
            copies = ((run.fork(), {name: copy.copy(meter) for name, meter in meters.items()}) for _ in range(_TRIALS))
            points_trials.append([_update(fork, own, held_out, draw(1), state)[0] for fork, own in copies])
        gained, state = _update(run, meters, held_out, draw(run.batch_size), state)
        updates.append(gained)
    return updates, points_trials


def _update(
    run: DistillationRun,
    meters: dict[str, RewardMeter],
    held_out: ImageSet,
    temperature: Temperature,
    before: _State,
) -> tuple[dict[str, float], _State]:
    """Make an update; return what it gained, by every reward and on the held-out images, and the state after it."""
    if run.outputs.indices is None:
        raise ValueError("the measurement of rewards needs the indices of the training images")
    looked_at = {SAME_BATCH: run.splits.train.subset(run.outputs.indices), TRUTH: held_out}
    losses = {name: before.exact.evaluate(images).loss for name, images in looked_at.items()}
    run.step(temperature)
    after = _State(run)
    gained = {name: meter.after_update(after.for_reward(name), is_last=False) for name, meter in meters.items()}
    gained |= {name: losses[name] - after.exact.evaluate(images).loss for name, images in looked_at.items()}
    return {name: float(value) for name, value in gained.items()}, after


class _State:
    """What is measured of a student as it is now, for rewards and exactly."""

    def __init__(self, run: DistillationRun) -> None:
        self.usual = _measurement(run, partial(run.task.evaluate_probe, run.student))
        self.exact = _measurement(run, partial(run.task.evaluate, run.student))

    def for_reward(self, name: str) -> Measurement:
        return self.exact if name == EXACT else self.usual


def _measurement(run: DistillationRun, measure: Callable[[ImageSet], Evaluation]) -> Measurement:
    """Return what rewards may look at now; images that several of them ask for are forwarded once."""
    known: dict[int, tuple[ImageSet, Evaluation]] = {}  # the images are kept so that no others get their ids

    def evaluate(images: ImageSet) -> Evaluation:
        if id(images) not in known:
            known[id(images)] = images, measure(images)
        return known[id(images)][1]

    return Measurement(run.outputs, evaluate, run.probe, run.probe_parts)


def _quality(watched: list[tuple[Updates, list[Updates]]], name: str) -> dict[str, float]:
    """Return a reward's mean correlations over the runs with the gain on the held-out images.

    They are over all updates of a run, over those of its second half, and over the trials of one update.
    """
    found: dict[str, list[float]] = {
        "pearson": [],
        "spearman": [],
        "pearson_second_half": [],
        "between_temperatures": [],
    }
    for updates, points in watched:
        reward, truth = _columns(updates, name)
        half = len(updates) // 2
        found["pearson"].append(_pearson(reward, truth))
        found["spearman"].append(float(stats.spearmanr(reward, truth).statistic))
        found["pearson_second_half"].append(_pearson(reward[half:], truth[half:]))
        if name != DELAYED:  # which does not see most single updates
            found["between_temperatures"] += [_pearson(*_columns(trials, name)) for trials in points]
    return {kind: float(np.nanmean(values)) for kind, values in found.items() if values}


def _columns(updates: Updates, name: str) -> tuple[np.ndarray, np.ndarray]:
    reward, truth = (np.array([update[column] for update in updates]) for column in (name, TRUTH))
    return reward, truth


def _pearson(reward: np.ndarray, truth: np.ndarray) -> float:
    return float(stats.pearsonr(reward, truth).statistic) if reward.std() > 0 else float("nan")


def _cost(run: DistillationRun, name: str, seed: int) -> dict[str, float]:
    """Return the time of an update with the reward over one of plain KD, from interleaved rounds of a whole turn."""
    if name in (SAME_BATCH, EXACT):
        return {}
    plain, rewarded = run.fork(), run.fork()
    rewarded.reward = RewardMeter("probe_loss", _DELAY) if name == DELAYED else RewardMeter(name)
    temperature = FixedTemperature(4.0)
    steps = min(TURN, run.total_steps)

    def seconds(of: DistillationRun, is_rewarded: bool) -> float:
        of.reset(seed)
        started = _clock(of)
        for _ in range(steps):
            of.step(temperature(of.outputs), is_rewarded)
        return _clock(of) - started

    ratios = []
    for _ in range(_ROUNDS):
        without = seconds(plain, False)
        ratios.append(seconds(rewarded, True) / without)
    return {"cost_ratio": float(np.median(ratios)), "cost_ratio_min": min(ratios), "cost_ratio_max": max(ratios)}


def _clock(run: DistillationRun) -> float:
    """Return seconds: of the processor, which others may be using too, or of an accelerator that has caught up."""
    if run.device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def _as_csv(runs: list[Updates]) -> bytes:
    """Return a row for every update, with what it gained in five digits."""
    content = io.StringIO(newline="")
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["run", "update", *runs[0][0]])
    writer.writerows(_rows(runs))
    return content.getvalue().encode()


def _rows(runs: list[Updates]) -> Iterator[list[Any]]:
    for number, updates in enumerate(runs):
        for step, gained in enumerate(updates, start=1):
            yield [number, step, *(f"{value:.5g}" for value in gained.values())]


def _print_table(quality: dict[str, dict[str, float]], folder: Path) -> None:
    table = Table(title="rewards against the gain on held-out images")
    columns = ("reward", "all updates", "second half", "between temperatures", "cost of an update")
    for column in columns:
        table.add_column(column, justify="left" if column == "reward" else "right")
    for name, row in quality.items():
        kinds = ("pearson", "pearson_second_half", "between_temperatures")
        correlations = [f"{row[kind]:.2f}" if kind in row else "–" for kind in kinds]
        table.add_row(name, *correlations, f"{row['cost_ratio']:.2f} ×" if "cost_ratio" in row else "–")
    console = Console()
    console.print(table)
    console.print(f"written to {folder / REWARDS_FILE} and {folder / UPDATES_FILE}", highlight=False, soft_wrap=True)
