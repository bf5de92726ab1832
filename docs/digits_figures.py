"""Make the README's table and picture from the runs behind them.

for seed in 0 1 2 3 4 5 6 7 8 9; do
    rlkd distill --seed $seed --student-alone
    rlkd distill --seed $seed --rule fixed
    rlkd distill --seed $seed --no-explore --out runs/digits-kd-still-seed$seed
    rlkd distill --seed $seed --no-explore --calibrator gradient --out runs/digits-kd-gradient-seed$seed
    rlkd distill --seed $seed --no-explore --calibrator uniform --out runs/digits-kd-uniform-seed$seed
    rlkd distill --seed $seed --no-explore --calibrator uniform --agent sac
done
python docs/digits_figures.py runs docs/digits.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

from agents.policy import TemperaturePolicy
from rlkd_env.config import RunConfig, build_run
from rlkd_env.models.storage import load_network

ARMS = {
    "digits-kd-fixed": "KD, fixed T = 4",
    "digits-kd-ppo": "KD, PPO, decomposed reward and exploration (default)",
    "digits-kd-still": "KD, PPO, decomposed reward",
    "digits-kd-gradient": "KD, PPO, gradient credit",
    "digits-kd-uniform": "KD, PPO, shared reward",
    "digits-kd-sac": "KD, SAC, shared reward",
}


def accuracies(runs: Path, arm: str, student: str) -> np.ndarray:
    """Test accuracies in percent, one a seed."""
    summaries = [json.loads((run / "summary.json").read_text()) for run in sorted(runs.glob(f"{arm}-seed*"))]
    return 100 * np.array([summary[f"{student}_test_accuracy"] for summary in summaries])


def interval(values: np.ndarray) -> str:
    """Mean and 95 % interval (Student's t over the seeds)."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():.2f} ± {half:.2f}"


def print_table(runs: Path) -> None:
    """Print test accuracy of last and validation-chosen epoch, and paired differences of the last one."""
    alone = accuracies(runs, "digits-kd-ppo", "student_alone_last")
    fixed = accuracies(runs, "digits-kd-fixed", "student_last")
    chosen = accuracies(runs, "digits-kd-ppo", "student_alone")
    print("| student | last epoch | best epoch on validation | over student alone | over fixed T = 4 |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| alone (cross-entropy) | {interval(alone)} | {interval(chosen)} | | |")
    for arm, label in ARMS.items():
        last, best = accuracies(runs, arm, "student_last"), accuracies(runs, arm, "student")
        over_fixed = "" if arm == "digits-kd-fixed" else interval(last - fixed)
        print(f"| {label} | {interval(last)} | {interval(best)} | {interval(last - alone)} | {over_fixed} |")


def curves(runs: Path, arm: str, tag: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the values of a tag ``(seeds, epochs)``."""
    values, steps = [], np.empty(0)
    for run in sorted(runs.glob(f"{arm}-seed*")):
        events = EventAccumulator(str(run / "tensorboard")).Reload().Scalars(tag)
        values.append([event.value for event in events])
        steps = np.array([event.step for event in events])
    return steps, np.array(values)


def draw(runs: Path, target: Path) -> None:
    """Draw validation accuracy, the agent's temperatures over time, and what it gives to whom at the end."""
    figure, (accuracy, over_time, instances) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    for arm in ("digits-kd-ppo", "digits-kd-fixed"):
        steps, values = curves(runs, arm, "student/validation_accuracy")
        accuracy.plot(steps, 100 * values.mean(0), label=ARMS[arm])
    accuracy.set(xlabel="update", ylabel="validation accuracy, %", ylim=(80, 96), title=f"mean of {len(values)} seeds")
    accuracy.legend()

    run_folder = runs / "digits-kd-ppo-seed0"
    for low, high, alpha in ((0.05, 0.95, 0.2), (0.25, 0.75, 0.4)):
        steps, lower = curves(runs, "digits-kd-ppo", f"temperature/quantile_{low:.2f}")
        _, upper = curves(runs, "digits-kd-ppo", f"temperature/quantile_{high:.2f}")
        over_time.fill_between(steps, lower[0], upper[0], alpha=alpha, color="C0", linewidth=0)
    over_time.plot(steps, curves(runs, "digits-kd-ppo", "temperature/quantile_0.50")[1][0], color="C0")
    over_time.set(xlabel="update", ylabel="temperature", title="temperatures chosen by PPO (seed 0)")

    config = json.loads((run_folder / "config.json").read_text())
    run = build_run(RunConfig(device="cpu", features=tuple(config["features"])))
    run.reset(0)
    run.student = load_network(run_folder / "student.safetensors", 10, (1, 8, 8))
    images, labels = run.splits.train.images, run.splits.train.labels
    with torch.no_grad():
        student, teacher = run.student(images), run.teacher(images)
    temperature = TemperaturePolicy.load(run_folder).temperatures(student, teacher, labels, progress=1.0)
    instances.set_xscale("logit")
    difficulty = 1.0 - student.softmax(1).gather(1, labels[:, None])[:, 0].clamp(max=0.9999)
    confidence = teacher.softmax(1).gather(1, labels[:, None])[:, 0]
    points = instances.scatter(difficulty, temperature, c=confidence, s=10, cmap="viridis", vmin=0.5, vmax=1.0)
    figure.colorbar(points, ax=instances, label="teacher's p of the true class")
    ticks = (0.001, 0.01, 0.1, 0.5, 0.9)
    instances.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    instances.xaxis.set_minor_formatter(NullFormatter())
    instances.set(xlabel="difficulty (1 − student's p)", ylabel="temperature", title="its policy at the end, per image")
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    print_table(Path(sys.argv[1]))
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
