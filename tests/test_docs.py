"""The documentation builds without a warning, and its tables of results are those of the committed comparisons."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.compare.statistics import estimate_mean

ROOT = Path(__file__).parent.parent
RESULTS = (ROOT / "docs" / "results.md").read_text()
README = (ROOT / "README.md").read_text()
TRAINED = ROOT / "agents" / "learned" / "pretrained" / "training.json"
ARMS = {
    "the policy of the package": "pretrained",
    "PPO, gradient credit": "ppo-gradient",
    "PPO, last-layer credit": "ppo-last_layer",
    "PPO, return decomposition (the paper's)": "ppo-return_decomposition",
    "PPO, shared reward": "ppo-uniform",
    "the public code's untrained agent, 10 · sigmoid(N(0, 0.6))": "public_agent",
    "a falling schedule (`--rule cosine`, 22 to 0.7)": "cosine",
    "CTKD": "ctkd",
    "random, log-uniform": "random",
    "LSKD with KL weight 9": "lskd-weight9",
    "student alone (cross-entropy)": "student_alone",
    "alone": "student_alone",
    "KD on the proposals, T = 4": "T=4",
    "KD on the proposals, T = 1": "T=1",
    "KD on the proposals, PPO between 0.5 and 2": "ppo-return_decomposition",
    "the same and the feature pyramid (`fpn`), T = 1": "T=1-fpn",
    "the same and the feature pyramid, PPO": "ppo-fpn",
    **{f"fixed, T = {number}": f"T={number}" for number in (1, 2, 3, 4, 8, 16)},
}
"""Arms of the comparisons by what the tables call them."""


def table(text: str, marker: str) -> list[list[str]]:
    """Return the cells of the table below a marker, without its head."""
    rows = re.search(rf"{re.escape(marker)}\n(?:\n)?((?:\|.*\n)+)", text)
    assert rows is not None, marker
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1].splitlines()[2:]]


def comparison(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "docs" / "results" / name / "comparison.json").read_text())


def percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f}"


def points(value: float, digits: int = 2) -> str:
    """Write a difference as the tables do: with its sign, a minus of full width."""
    return f"{100 * value:+.{digits}f}".replace("-", "−")


def difference(statistic: dict[str, Any], digits: int = 2) -> str:
    low, high = (points(bound, digits) for bound in statistic["interval"])
    return f"{points(statistic['mean'], digits)} ({low} to {high})"


def paired(name: str, arm: str, other: str) -> dict[str, Any]:
    """Return mean and interval of the difference between two arms, seed by seed."""
    accuracy = {(run["arm"], run["seed"]): run["last_test_accuracy"] for run in comparison(name)["runs"]}
    seeds = sorted(seed for known, seed in accuracy if known == arm)
    found = estimate_mean([accuracy[arm, seed] - accuracy[other, seed] for seed in seeds])
    return {"mean": found.mean, "interval": found.interval}


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "cifar100"])
def test_the_tables_are_those_of_the_comparisons(name: str) -> None:
    statistics = comparison(name)["statistics"][name]
    rows = table(RESULTS, f"<!-- data: {name} -->")
    assert len(rows) >= 7
    for label, mean, over_baseline, over_best, cost in rows:
        arm = statistics["last"]["arms"][ARMS[label]]
        low, high = (percent(bound) for bound in arm["mean"]["interval"])
        assert mean == f"{percent(arm['mean']['mean'])} ({low} to {high})"
        is_baseline, is_best = ARMS[label] == "T=4", ARMS[label] == statistics["last"]["best_fixed"]
        assert over_baseline.strip("*") == ("" if is_baseline else difference(arm["difference"]))
        assert over_best.strip("*") == ("" if is_best else difference(arm["regret"]))
        assert cost == f"{statistics['runs'][ARMS[label]]['cost_ratio']:.2f} ×"


def test_the_table_of_detection_is_that_of_the_comparison() -> None:
    statistics = comparison("digits_detection")["statistics"]["digits_detection"]
    rows = table(RESULTS, "<!-- data: digits_detection -->")
    assert len(rows) == 6
    for label, ap, _, _, over_alone, cost in rows:
        arm = ARMS[label]
        assert ap == percent(statistics["last"]["arms"][arm]["mean"]["mean"], 1)
        alone = "" if label == "alone" else difference(paired("digits_detection", arm, "student_alone"), 1)
        assert over_alone.strip("*") == alone
        assert cost == f"{statistics['runs'][arm]['cost_ratio']:.2f} ×"


def test_the_table_of_the_packages_policy_is_what_its_training_measured() -> None:
    held_out = json.loads(TRAINED.read_text())["held_out"]
    rows = table(RESULTS, "<!-- data: pretrained -->")
    assert len(rows) == len(held_out)
    for (_, runs, best, over_best, over_t4), measured in zip(rows, held_out, strict=True):
        assert runs == str(measured["seeds"][1] - measured["seeds"][0])
        temperature, accuracy = measured["best_fixed"], measured["fixed"][measured["best_fixed"]]
        assert best == f"T = {float(temperature):.2g}, {percent(accuracy)}"
        for cell, key in ((over_best, "to_best_fixed"), (over_t4, "to_t4")):
            statistic = measured[key]
            assert cell.strip("*") == difference({**statistic, "interval": (statistic["low"], statistic["high"])})


def test_the_table_of_rewards_is_what_was_measured() -> None:
    tasks = {"Digits": "digits", "Fashion-MNIST": "fashion_mnist", "CIFAR-100": "cifar100"}
    names = {
        "the batch itself, before and after": "same_batch",
        "`probe_loss`, every 8th update": "probe_loss, every 8th update",
    }
    rows = table(RESULTS, "<!-- data: rewards -->")
    folders = {path.parent.name: path for path in (ROOT / "docs" / "results" / "rewards").glob("*/rewards.json")}
    measured = {
        task: json.loads(folders[name].read_text())["rewards"] for task, name in tasks.items() if name in folders
    }
    assert len(measured) == len(folders) >= 2
    assert len(rows) == sum(len(rewards) for rewards in measured.values())
    for task, label, *correlations, cost in rows:
        reward = measured[task][names.get(label, label.strip("`"))]
        for cell, kind in zip(correlations, ("pearson", "pearson_second_half", "between_temperatures"), strict=True):
            assert cell == (f"{reward[kind]:.2f}".replace("-", "−") if kind in reward else "–")
        assert cost == (f"{reward['cost_ratio']:.2f} ×" if "cost_ratio" in reward else "–")


def test_the_readmes_table_is_that_of_the_comparisons() -> None:
    rows = table(README, "differences in points with 95 % intervals:")
    sources = [
        ("digits", "pretrained", "T=4"),
        ("digits", "ppo-return_decomposition", "T=4"),
        ("fashion_mnist", "pretrained", "T=4"),
        ("cifar100", "pretrained", "T=4"),
        ("digits_detection", "ppo-fpn", "T=1-fpn"),
    ]
    assert len(rows) == len(sources)
    for (_, fixed, _, mean, change, best), (name, arm, baseline) in zip(rows, sources, strict=True):
        last = comparison(name)["statistics"][name]["last"]
        assert fixed == percent(last["arms"][baseline]["mean"]["mean"])
        assert mean == percent(last["arms"][arm]["mean"]["mean"])
        assert change.strip("*") == difference(paired(name, arm, baseline))
        if name != "digits_detection":
            best_arm = last["best_fixed"]
            assert best == f"{best_arm.replace('=', ' = ')}: {percent(last['arms'][best_arm]['mean']['mean'])}"


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), "docs", str(tmp_path / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    pages = {path.relative_to(tmp_path / "html").as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    assert {"index.html", "results.html", "tutorials/own_loop.html", "reference/agents.rules.html"} <= pages.keys()
    assert "DistillationRun" in pages["reference/rlkd_env.runs.html"]
    for name, page in pages.items():
        if not name.startswith("reference/"):
            named, linked = ('<code class="xref py', r'<a class="reference internal"[^>]*><code class="xref py')
            assert len(re.findall(named, page)) == len(re.findall(linked, page)), f"{name} names what is not there"
