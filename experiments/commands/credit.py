"""``rlkd credit``: how well each calibrator knows what an instance's temperature earned, measured against the truth."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy import stats

from experiments.config import CreditConfig
from experiments.next_command import distill_words, tell_next
from experiments.session.folder import CREDIT_FILE, check_measurement, measuring
from rlkd_env.credit.base import Calibrator
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.credit.return_decomposition import ReturnDecomposition
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.runs.build import build_run
from rlkd_env.runs.run import DistillationRun
from rlkd_env.training.progress import progress_bar
from rlkd_env.utils.files import write_atomically, write_json
from rlkd_env.wrappers import CalibratedReward, TemperatureAction

SCATTER_FILE = "credit.png"
_TIMED_STEPS, _TIMED_ROUNDS = 40, 7


def run_credit(config: CreditConfig) -> int:
    """Measure the calibrators on runs with random temperatures and write ``credit.json`` and ``credit.png``."""
    if config.rewards:
        from experiments.commands.rewards import run_rewards

        return run_rewards(config)
    names = [name for name in CALIBRATORS if name != "counterfactual"]
    folder = Path(config.out)
    check_measurement(folder / CREDIT_FILE, config.overwrite)
    run = build_run(config.run)
    with measuring(folder / CREDIT_FILE, config.overwrite):
        quality = _measure_all(run, config, names, folder)
    _print_table(quality, folder)
    best = max(names, key=lambda name: quality[name]["pearson"] or -1.0)
    tell_next(*distill_words(config.run.as_keywords(), agent="ppo", calibrator=best))
    return 0


def _measure_all(
    run: DistillationRun, config: CreditConfig, names: list[str], folder: Path
) -> dict[str, dict[str, Any]]:
    """Measure how good and how dear every calibrator is, and write both files."""
    samples = _measure(run, config)
    costs = {name: _cost_ratio(run, name, config.seed) for name in (*names, "counterfactual")}
    quality = {name: {**_correlations(samples, name), **costs[name]} for name in names}
    quality["counterfactual"] = {"pearson": 1.0, "spearman": 1.0, **costs["counterfactual"]}
    write_json(folder / CREDIT_FILE, quality)
    _draw(samples, names, folder / SCATTER_FILE)
    return quality


def _measure(run: DistillationRun, config: CreditConfig) -> list[dict[str, np.ndarray]]:
    """Follow runs with random temperatures; at each point return every calibrator's credits ``(N,)`` and the truth's.

    The learned decomposition sees every update of every run; a point of an early run is measured before it has seen the
    later ones.
    """
    env = TemperatureAction(KDVectorEnv(run=run))
    hooks = {name: kind(run) for name, kind in CALIBRATORS.items() if issubclass(kind, Calibrator)}
    widths = (space.shape[0] for space in (env.single_observation_space, env.single_action_space))  # type: ignore[index]
    decomposition = ReturnDecomposition(*widths)
    generator = np.random.default_rng(config.seed)
    points = set(np.linspace(run.total_steps * 0.1, run.total_steps - 1, config.points).astype(int).tolist())
    samples = []
    for seed in progress_bar("credit", "run", iterable=range(config.seed, config.seed + config.runs)):
        observation, _ = env.reset(seed=seed)
        for step in range(run.total_steps):
            actions = generator.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            learned = decomposition.credit(observation, actions)
            with _watched(run, hooks.values() if step in points else ()):
                observation, reward, *_ = env.step(actions)
            if run.reward.is_measured:
                decomposition.learn(float(reward.mean()))
            if step in points:
                credits = {name: hook.credit for name, hook in hooks.items() if hook.credit is not None}
                found = {name: credit.double().cpu().numpy() for name, credit in credits.items()}
                samples.append({**found, "return_decomposition": learned})
        env.step(actions)  # starts the next run
    return samples


@contextmanager
def _watched(run: DistillationRun, hooks: Iterable[Calibrator]) -> Iterator[None]:
    """Let calibrators watch a run for a while."""
    for hook in hooks:
        run.add_hook(hook)
    yield
    for hook in hooks:
        run.remove_hook(hook)


def _correlations(samples: list[dict[str, np.ndarray]], name: str) -> dict[str, float | None]:
    """Mean within-batch correlations with the truth; None where the credits do not vary, so there is none."""
    pairs = [(sample[name], sample["counterfactual"]) for sample in samples if sample[name].std() > 0]
    if not pairs:
        return {"pearson": None, "spearman": None}
    return {
        "pearson": float(np.mean([stats.pearsonr(*pair).statistic for pair in pairs])),
        "spearman": float(np.mean([stats.spearmanr(*pair).statistic for pair in pairs])),
    }


def _cost_ratio(run: DistillationRun, name: str, seed: int) -> dict[str, float]:
    """Time of a step with the calibrator over one without, from interleaved rounds: median, least and greatest."""
    plain = TemperatureAction(KDVectorEnv(run=run))
    calibrated = CalibratedReward(plain, name)
    generator = np.random.default_rng(seed)
    actions = generator.uniform(-1, 1, plain.action_space.shape).astype(np.float32)

    def seconds(env: Any) -> float:
        env.reset(seed=seed)
        started = time.perf_counter()
        for _ in range(min(_TIMED_STEPS, run.total_steps - 1)):
            env.step(actions)
        return time.perf_counter() - started

    ratios = []
    for _ in range(_TIMED_ROUNDS):
        calibrated.watch()
        with_calibrator = seconds(calibrated)
        calibrated.pause()
        ratios.append(with_calibrator / seconds(plain))
    return {"cost_ratio": float(np.median(ratios)), "cost_ratio_min": min(ratios), "cost_ratio_max": max(ratios)}


def _draw(samples: list[dict[str, np.ndarray]], names: list[str], path: Path) -> None:
    """Scatter the credits against the truth, both in deviations of their batch."""
    figure = Figure(figsize=(3.2 * len(names), 3.4), dpi=110, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), sharey=True), names, strict=True):
        truth = np.concatenate([_standardized(sample["counterfactual"]) for sample in samples])
        credit = np.concatenate([_standardized(sample[name]) for sample in samples])
        axes.scatter(truth, credit, s=3, alpha=0.3, linewidths=0)
        axes.set(title=name, xlabel="true effect / deviation", xlim=(-4, 4), ylim=(-4, 4))
        axes.axline((0, 0), slope=1, color="0.7", linewidth=0.8, zorder=0)
    figure.axes[0].set_ylabel("credit / deviation")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_atomically(path, content.getvalue())


def _standardized(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() or 1.0)


def _print_table(quality: dict[str, dict[str, Any]], folder: Path) -> None:
    table = Table(title="credit against the counterfactual truth, within batches")
    for column in ("calibrator", "Pearson", "Spearman", "cost of a step"):
        table.add_column(column, justify="left" if column == "calibrator" else "right")
    for name, row in quality.items():
        correlations = ["–" if row[kind] is None else f"{row[kind]:.2f}" for kind in ("pearson", "spearman")]
        cost = f"{row['cost_ratio']:.2f} × ({row['cost_ratio_min']:.2f} to {row['cost_ratio_max']:.2f})"
        table.add_row(name, *correlations, cost)
    console = Console()
    console.print(table)
    console.print(f"written to {folder / CREDIT_FILE} and {folder / SCATTER_FILE}", highlight=False, soft_wrap=True)
