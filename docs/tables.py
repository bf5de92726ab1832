"""The tables of results in the documents, from the data in the repository: ``python docs/tables.py`` writes them anew.

A table stands below a comment that names its data:

* ``<!-- data: NAME -->``: ``docs/results/NAME``, the comparison or credit of that folder;
* ``<!-- data: NAME TASK -->``: one task of a comparison over several;
* ``<!-- data: NAME over tasks -->``: all of its tasks;
* ``<!-- data: tasks -->``: a row a task of the comparison over all, ``<!-- data: costs -->``: a column a task;
* ``<!-- data: anneal -->``: the sweep of annealing in ``docs/results/anneal``; ``<!-- data: starts -->``: the starts
  that short runs want, ``<!-- data: short_runs -->``: what its colder start does for them;
* ``<!-- data: rewards TASK -->``: the measurement of rewards in ``docs/results/rewards/TASK``;
* ``<!-- data: pretrained -->``: what the training of the package's policy measured;
* ``<!-- data: ranking -->``: how students on frozen features rank rules (``docs/results/frozen_features``);
* ``<!-- data: policy -->``: what the package's policy gains on the tasks that it was trained on;
* ``<!-- data: over_annealing -->``: what arms of the comparison over all tasks gain over annealing;
* ``<!-- data: own_spread -->``: what the power brings with which temperatures follow the logits' own spread;
* ``<!-- data: rule_cost -->``: what rules and agents cost beside a fixed temperature (``docs/results/rule_cost``);
* ``<!-- data: gpu -->`` and ``<!-- data: cpu -->``: what ``rlkd bench`` measured on a GPU and on a CPU, ``<!-- data:
  agent_cost -->``: what agents cost on the GPU;
* ``<!-- data: methods -->``: what an update costs with each method (``docs/results/methods``), ``<!-- data: methods
  NAME -->``: another measurement of that, in the folder of that name within it, ``<!-- data: method_accuracy
  NAME -->``: what the students of each learn, in a comparison there;
* ``<!-- data: learning -->``: what agents learn within a run of the toy, ``<!-- data: learning digits -->``: with what
  discount on Digits (``docs/results/learning``);
* ``<!-- data: decoding -->``: how long image files take to decode;
* ``<!-- data: population -->`` and ``<!-- data: population ppo -->``: what populations choose, and one agent for eight
  students (``docs/results/population``);
* ``<!-- data: ranked_arms -->``: how the arms of the comparison over all tasks correlate with cheap students;
* ``<!-- data: one_coefficient -->``: what single coefficients around the annealed schedule gain on them.

The first column says what a row is of (:data:`LABELS`, or the name in the data), the head what a column is. Both stay
as they are; the other cells are written here. A difference is bold if its interval is clear of zero. Tasks of the
comparison over all of them are called as in :data:`TASKS`.
"""

from __future__ import annotations

import csv
import json
import math
import re
import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the results are read with this checkout's code

from experiments.compare.rows import COMPARISON_FILE
from experiments.compare.statistics import estimate_mean
from experiments.config import DistillConfig
from experiments.report.run.expected import EXPECTED_FILE, IDENTITY
from rlkd_env.instances.schedule import AnnealedTemperature

DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
RESULTS = ROOT / "docs" / "results"
EXPECTED = ROOT / "experiments" / "report" / "run" / EXPECTED_FILE
TRAINED = ROOT / "agents" / "learned" / "pretrained" / "training.json"
LABELS = {
    "annealing (the default)": "anneal",
    "annealing, one temperature for all (`own_spread 0`)": "anneal-shared",
    "PPO around annealing (`--agent ppo`)": "ppo-anneal",
    "PPO as the paper's, from 1 to 10": "ppo-paper",
    "PPO, last-layer credit": "ppo-last_layer",
    "the policy of the package": "pretrained",
    "a falling schedule (`--rule cosine`)": "cosine",
    "DTS as published, from 8 to 4": "dts",
    "DTS, from 8 to 1": "dts-8-1",
    "CTKD": "ctkd",
    "fixed, T = 0.5, or annealing": "T=0.5",
    "regions from 2 to 0.5": "falling",
    "annealing from 2 to 0.5": "anneal",
    "random, log-uniform": "random",
    "LSKD with KL weight 9": "lskd-9",
    "LSKD with KL weight 0.9": "lskd-0.9",
    "NormKD with KL weight 0.9": "normkd-0.9",
    "student alone (cross-entropy)": "student_alone",
    "alone": "student_alone",
    "float32": "T=4",
    "bfloat16 (`--precision bfloat16`)": "bfloat16",
    "KD on the proposals, T = 4": "T=4",
    "KD on the proposals, T = 1": "T=1",
    "KD on the proposals, PPO between 0.5 and 2": "ppo-return_decomposition",
    "the same and the feature pyramid (`fpn`), T = 1": "T=1-fpn",
    "the same and the feature pyramid, PPO": "ppo-fpn",
    "the batch itself, before and after": "same_batch",
    "`probe_loss`, every 8th update": "probe_loss, every 8th update",
    "`probe_turns`, in float32": "probe_turns, in float32",
}
"""Arms by what the tables call them; the names that are not here are those of the data."""
TASKS = {
    "Digits, 300 images": "digits",
    "Digits, 100 images": "digits-100",
    "Digits, student of 64 units": "digits-mlp64",
    "Digits, DKD": "digits-dkd",
    "Fashion-MNIST, over-trained teacher": "fashion-overtrained",
    "Fashion-MNIST": "fashion",
    "CIFAR-100": "cifar100",
    "CIFAR-100, DKD": "cifar100-dkd",
    "digit detection": "digits-detection",
}
"""The tasks of the comparison over all of them, by what the tables call them."""
MEAN_OF_METHODS = "all of them, in the mean"
POPULATIONS = {"eight fixed temperatures": "fixed", "eight schedules": "anneal", "PPO for eight students": "ppo"}
"""The populations, by what the tables call them."""
ALL = "all"
"""The comparison over all tasks."""
_TABLE = re.compile(r"(?<=<!-- data: )([^>]+?)( -->\n\n?)((?:\|.*\n)+)")

Cells = list[str]
Fill = Callable[[str, list[str]], str]  # a column's head and a row's cells to the cell


def filled(text: str) -> str:
    """Return a document with the figures of its tables as the data have them."""
    return _TABLE.sub(lambda found: f"{found[1]}{found[2]}{_filled_table(found[1], found[3])}", text)


def _filled_table(source: str, table: str) -> str:
    head, rule, *rows = table.splitlines()
    columns, fill = _cells(head), _fill(source)
    lines = []
    for row in map(_cells, rows):
        cells = [row[0], *(fill(column, row) for column in columns[1:])]
        lines.append(re.sub(r"\|  (?=\|)", "| ", f"| {' | '.join(cells)} |"))
    return "\n".join([head, rule, *lines]) + "\n"


def _cells(row: str) -> Cells:
    return [cell.strip() for cell in row.strip("|").split("|")]


def _fill(source: str) -> Fill:
    name, _, part = source.partition(" ")
    if source == "costs":
        return _cost_on
    if source == "rule_cost":
        return lambda column, row: _cost_of_rule(read("rule_cost", "cost.json")[TASKS[column]].get(arm_of(row[0])))
    if source == "tasks":
        return _of_task
    if source in ("anneal", "starts", "short_runs"):
        return {"anneal": _of_sweep, "starts": _of_starts, "short_runs": _of_short_runs}[source]
    if name in ("pretrained", "which_student", "threads"):
        return {"pretrained": _of_training, "which_student": _of_kept, "threads": _of_threads}[name]
    if name == "methods":
        return lambda column, row: _of_method(read(f"methods/{part}" if part else name, "bench.json"), column, row)
    if name == "method_accuracy":
        return lambda column, row: _of_method_accuracy(f"methods/{part}", part, column, row[0].strip("`"))
    if name in ("gpu", "cpu"):
        return lambda column, row: _of_bench(name, column, row)
    if name in ("agent_cost", "decoding"):
        return {"agent_cost": _of_agent, "decoding": _of_decoding}[name]
    if name == "learning":
        return _of_discount if part else _of_learning
    if name == "rewards":
        return lambda column, row: _of_reward(read(f"rewards/{part}", "rewards.json"), column, row)
    if name in ("ranking", "ranked_arms", "one_coefficient"):
        return {"ranking": _of_ranking, "ranked_arms": _of_ranked_arms, "one_coefficient": _of_coefficient}[name]
    if name == "policy":
        return lambda _, row: difference(script("frozen_features/policy")["of_task"](row[0].strip("`")))
    if source in ("over_annealing", "own_spread"):
        return {"over_annealing": _over_annealing, "own_spread": _of_own_spread}[source]
    if name == "population":
        return _of_agent_for_all if part == "ppo" else _of_population
    if (RESULTS / name / "credit.json").is_file():
        return lambda column, row: _of_credit(read(name, "credit.json"), column, row)
    if part == "over tasks":
        return lambda column, row: _over_tasks(read(name)["over_tasks"]["last"], column, row)
    task = part or next(iter(read(name)["statistics"]))
    return lambda column, row: _of_comparison(name, task, column, arm_of(row[0]))


@cache
def read(name: str, file: str = COMPARISON_FILE) -> dict[str, Any]:
    """Return a file of results."""
    content: dict[str, Any] = json.loads((RESULTS / name / file).read_text())
    return content


def arm_of(label: str) -> str:
    """Return the arm that a table calls so."""
    fixed = re.fullmatch(r"fixed, (T) = ([\d.]+)", label)
    return LABELS.get(label) or (f"T={fixed[2]}" if fixed else label.strip("`*"))


def percent(value: float, digits: int = 2) -> str:
    """Write a share in percent, a minus of full width."""
    return f"{100 * value:.{digits}f}".replace("-", "−")


def points(value: float, digits: int = 2) -> str:
    """Write a difference in points with its sign, a minus of full width."""
    return f"{100 * value:+.{digits}f}".replace("-", "−")


def difference(statistic: dict[str, Any] | None) -> str:
    """Write a difference with its interval, bold if that is clear of zero."""
    if statistic is None:
        return "–"
    if statistic["interval"] is None:
        return points(statistic["mean"])
    low, high = statistic["interval"]
    told = f"{points(statistic['mean'])} ({points(low)} to {points(high)})"
    return f"**{told}**" if low > 0 or high < 0 else told


def paired(name: str, task: str, arm: str, other: str) -> dict[str, Any]:
    """Return mean and interval of the difference between two arms, seed by seed."""
    return mean_gain(name, task, [(arm, other)])


def mean_gain(name: str, task: str, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return mean and interval over the seeds of what one of two arms gains over the other, in the mean of pairs."""
    rows = [run for run in read(name)["runs"] if run["task"] == task]
    accuracy = {(run["arm"], run["seed"]): run["last_test_accuracy"] for run in rows}
    seeds = sorted(seed for known, seed in accuracy if known == pairs[0][0])
    found = estimate_mean(
        [fmean(accuracy[arm, seed] - accuracy[other, seed] for arm, other in pairs) for seed in seeds]
    )
    return {"mean": found.mean, "interval": found.interval}


def _over_annealing(column: str, row: Cells) -> str:
    """A row a task of the comparison over all of them; columns are the seeds, and what an arm gains over annealing."""
    task = TASKS[row[0]]
    made = [run["arm"] for run in read("all")["runs"] if run["task"] == task]
    if column == "seeds":
        return str(made.count("anneal"))
    return difference(paired("all", task, arm_of(column), "anneal") if arm_of(column) in made else None)


def _of_own_spread(column: str, row: Cells) -> str:
    """A row a task and its epochs; columns are the mean without own spread, and what a power gains over that."""
    measured, run = script("own_spread/many"), (row[0].strip("`"), row[1])
    if column == "epochs":
        return row[1]
    if column == "power 0":
        return percent(measured["mean_of"](*run))
    return difference(measured["of_task"](*run, float(column.removeprefix("power "))))


def _of_comparison(name: str, task: str, column: str, arm: str) -> str:
    statistics = read(name)["statistics"][task]
    found = statistics["last"]["arms"][arm]
    if column in ("mean", "AP"):
        low, high = (percent(bound) for bound in found["mean"]["interval"])
        return f"{percent(found['mean']['mean'])} ({low} to {high})"
    if column == "over student alone":
        return "" if arm == "student_alone" else difference(paired(name, task, arm, "student_alone"))
    if column == "over annealing":
        return "" if arm == "anneal" else difference(paired(name, task, arm, "anneal"))
    if column.startswith("over the best fixed T"):
        return "" if arm == statistics["last"]["best_fixed"] else difference(found["regret"])
    if column.startswith("over "):
        return "" if arm == statistics["baseline"] else difference(found["difference"])
    if column == "cost":
        return f"{statistics['runs'][arm]['cost_ratio']:.2f} ×"
    raise KeyError(f"no table has the column {column!r}")


def _over_tasks(arms: dict[str, Any], column: str, row: Cells) -> str:
    found = arms[arm_of(row[0])]
    if column.startswith("mean"):
        return difference(found["regret"])
    if column == "by seeds alone":
        low, high = found["regret"]["seeds_interval"]
        return f"{points(low)} to {points(high)}"
    if column.startswith("worst"):
        return f"{points(found['worst']['regret'])}, {found['worst']['task']}"
    if column.startswith("at or above"):
        return f"{found['at_or_above']} of {found['tasks']}"
    if column.startswith("over "):
        return difference(found["difference"])
    if column == "cost":
        return f"{found['cost_ratio']:.2f} ×"
    raise KeyError(f"no table over tasks has the column {column!r}")


def _of_task(column: str, row: Cells) -> str:
    """A row a task; columns are the best fixed temperature, and others' differences to it."""
    last = read(ALL)["statistics"][TASKS[row[0]]]["last"]
    best = last["best_fixed"]
    if column == "seeds":
        return str(last["arms"][best]["mean"]["count"])
    if column == "best fixed T":
        return f"{best.replace('=', ' = ')}: {percent(last['arms'][best]['mean']['mean'])}"
    arm = arm_of(column)
    return difference(last["arms"][arm]["regret"]) if arm in last["arms"] and arm != best else "–"


def _cost_on(column: str, row: Cells) -> str:
    statistics = read(ALL)["statistics"][TASKS[column]]
    arm = arm_of(row[0])
    return f"{statistics['runs'][arm]['cost_ratio']:.2f} ×" if arm in statistics["runs"] else "–"


@cache
def _swept() -> dict[tuple[str, str], dict[str, float]]:
    """Return the accuracies of the sweep of annealing by task and rule, seed by seed."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    with (RESULTS / "anneal" / "sweep.csv").open() as file:
        for line in csv.DictReader(file):
            accuracies = found.setdefault((line["task"], line["rule"]), {})
            accuracies[line["seed"]] = float(line["held_out_accuracy"])
    return found


def _of_sweep(column: str, row: Cells) -> str:
    """A row a rule; columns are tasks: the difference to the best fixed temperature of each."""
    rule = row[0].replace(" = ", "=").removeprefix("fixed, ")
    means = {name: fmean(found.values()) for (task, name), found in _swept().items() if task == column}
    return points(means[rule] - max(mean for name, mean in means.items() if name.startswith("T=")))


def _of_starts(column: str, row: Cells) -> str:
    """A row a task and its epochs; columns are starts, the difference to the best fixed temperature of the task."""
    known, task = script("anneal/starts"), f"{row[0].strip('`')}@{row[1]}"
    updates = known["updates_per_class"](task)
    if column == "epochs":
        return row[1]
    if column == "updates a class":
        return f"{updates:.3g}"
    if column == "annealing starts at":
        return f"{math.exp(AnnealedTemperature().terms(0.0, False, float(row[1]), updates)[0]):.2f}s"
    return points(known["over_best_fixed"](task, f"{column} to 0.35s"))


def _of_short_runs(column: str, row: Cells) -> str:
    """A row a task; columns are differences of annealing to the task's best fixed temperature and to other starts."""
    known, task = script("anneal/short_runs"), row[0].strip("`")
    best = known["best_fixed"](task)
    plain = {
        "epochs": str(known["EPOCHS"][task]),
        "updates a class": f"{known['updates_per_class'](task):.3g}",
        "best fixed": best.replace("=", " = "),
    }
    if column in plain:
        return plain[column]
    return difference(known["of_task"](task, "anneal", best if column == "the best fixed" else column))


def _of_training(column: str, row: Cells) -> str:
    held_out = json.loads(TRAINED.read_text())["held_out"]
    found = next(one for one in held_out if one["instance"] == row[0].strip("`"))
    if column == "paired runs":
        return str(found["seeds"][1] - found["seeds"][0])
    if column == "best fixed":
        return f"T = {float(found['best_fixed']):.2g}, {percent(found['fixed'][found['best_fixed']])}"
    keys = {"over `anneal`": "to_anneal", "`anneal` over the best fixed": "anneal_to_best_fixed"}
    measured = found[keys.get(column, "to_best_fixed")]
    return difference({"mean": measured["mean"], "interval": (measured["low"], measured["high"])})


@cache
def script(path: str) -> dict[str, Any]:
    """Return the names that a script among the results defines."""
    return runpy.run_path(str(RESULTS / f"{path}.py"))


def _of_population(column: str, row: Cells) -> str:
    """A row a task and what its members are; columns compare what is kept with members and with what else may be."""
    task, _, label = row[0].partition(", ")
    name, known = POPULATIONS[label], script("population/figures")
    best = known["kept"](task, name)
    if column == "seeds":
        return str(len(best))
    if column == "kept":
        return percent(fmean(best.values()))
    if column == "over the best member in hindsight":
        return difference(known["difference"](best, known["best_member"](task, name)))
    if column == "over the mean member":
        return difference(known["difference"](best, known["mean_member"](task, name)))
    if column == "over annealing alone":
        return difference(known["difference"](best, known["annealing"](task)))
    kind = {"average of all weights over it": "average-weights", "ensemble over it": "ensemble"}[column]
    return difference(known["difference"](known["kept"](task, name, kind), best))


def _of_agent_for_all(column: str, row: Cells) -> str:
    """A row a task: one agent for eight students against one for a single student, after the last epoch."""
    known = script("population/figures")
    alone = known["kept"](row[0], "ppo", "single")
    if column == "PPO for one student":
        return percent(fmean(alone.values()))
    of_all = {
        "the mean of eight students": known["mean_member"](row[0], "ppo"),
        "the kept one of eight": known["kept"](row[0], "ppo"),
    }
    return difference(known["difference"](of_all[column.removesuffix(" over it")], alone))


def _of_kept(column: str, row: Cells) -> str:
    """A row a task; columns are what else may be kept of a run, against the student of the last epoch."""
    task = row[0].strip("`")
    with (RESULTS / "which_student" / "kept.csv").open() as file:
        runs = [line for line in csv.DictReader(file) if line["task"] == task]
    if column == "runs":
        return str(len(runs))
    candidate = {
        "best accuracy": "best_accuracy",
        "best loss": "best_loss",
        "mean weights of the last tenth": "mean_0.1",
    }[column]
    found = estimate_mean([(float(run[candidate]) - float(run["last"])) / 100.0 for run in runs])
    return difference({"mean": found.mean, "interval": found.interval})


def _of_threads(column: str, row: Cells) -> str:
    with (RESULTS / "threads" / "threads.csv").open() as file:
        found = {line["threads"]: line for line in csv.DictReader(file) if line["student"] == row[0]}
    if column == "operations":
        return f"{float(found['1']['operations']):.1e}"
    return "{least_ms} to {greatest_ms}".format(**found[column[0]])


def _of_ranking(column: str, row: Cells) -> str:
    found = script("frozen_features/rank_rules")["correlations"]()[row[0].strip("`")]
    return f"{found[('schedules', 'random rules', 'their instance terms').index(column)]:.2f}"


def _of_ranked_arms(column: str, row: Cells) -> str:
    found, arms = script("frozen_features/rank_arms")["correlation"](TASKS[row[0]])
    return str(arms) if column == "arms" else f"{found:.2f}".replace("-", "−")


def _of_coefficient(column: str, row: Cells) -> str:
    name, followed, value = row[0].replace("`", "").replace("−", "-").split(", ")
    of_few = {"few updates": True, "all others": False}.get(column)
    mean, error, worst = script("frozen_features/one_coefficient")["summary"](name, followed, float(value), of_few)
    if column == "worst task":
        return points(worst / 100.0)
    return difference({"mean": mean / 100.0, "interval": ((mean - 2 * error) / 100.0, (mean + 2 * error) / 100.0)})


def _of_bench(name: str, column: str, row: Cells) -> str:
    files = {"gpu": ("earlier.json", "bench.json"), "cpu": ("bench.json",)}[name]
    arms = {arm: found for file in files for arm, found in read(name, file)["arms"].items()}
    found = arms[row[0].strip("`")]
    if column == "to plain KD":
        return "{ratio_to_plain_kd:.2f} ({ratio_min:.2f} to {ratio_max:.2f})".format(**found)
    key, form = {
        "ms a step": ("step_ms", ".2f"),
        "images a second": ("images_per_s", ",.0f"),
        "to the floor": ("ratio_to_floor", ".2f"),
        "peak MiB": ("peak_memory_mb", ",.0f"),
    }[column]
    return format(found[key], form) if key in found else "–"


def _of_method(bench: dict[str, Any], column: str, row: Cells) -> str:
    found = bench["arms"]["method_" + row[0].strip("`")]
    if column == "to plain KD":
        return "{ratio_to_plain_kd:.2f} ({ratio_min:.2f} to {ratio_max:.2f})".format(**found)
    return f"{found['peak_memory_mb']:,.0f}"


def _of_method_accuracy(name: str, task: str, column: str, method: str) -> str:
    """A row a method; its test accuracy with each kind of temperatures, and its gains over plain KD and over T = 4."""
    if method == MEAN_OF_METHODS:
        fixed = [arm for arm in read(name)["arms"] if arm.endswith("-T=4")]
        pairs = [("anneal", "T=4"), *((arm.removesuffix("-T=4"), arm) for arm in fixed)]
        return difference(mean_gain(name, task, pairs)) if column == "annealing over T = 4" else ""
    arms = {"annealing": method if method != "kd" else "anneal", "T = 4": f"{method}-T=4" if method != "kd" else "T=4"}
    if method == "cross_entropy":
        arms = {"annealing": "student_alone", "T = 4": ""}
    if column == "annealing over `kd`":
        return "" if method == "kd" else difference(paired(name, task, arms["annealing"], "anneal"))
    if column == "annealing over T = 4":
        return difference(paired(name, task, arms["annealing"], arms["T = 4"])) if arms["T = 4"] else ""
    if column == "annealing, chosen epoch":
        chosen = read(name)["statistics"][task]["chosen"]["arms"][arms["annealing"]]["mean"]
        return percent(chosen["mean"])
    return _of_comparison(name, task, "mean", arms[column]) if arms[column] else ""


def _of_agent(column: str, row: Cells) -> str:
    summary = runpy.run_path(str(RESULTS / "agent_cost" / "agent_cost.py"))["summary"]
    slots = int(column.removesuffix(" slots").replace(",", ""))
    return "{:.1f} ms ({:.1f} to {:.1f})".format(*summary(slots, row[0].removeprefix("the ")))


def _of_learning(column: str, row: Cells) -> str:
    setting = {
        "by default": "default",
        "with the shared reward": "shared_reward",
        "with the shared reward and a discount of 0.99": "shared_reward_discount_0.99",
    }[column]
    errors = read("learning", "bench.json")["learning"]["agents"][row[0].strip("`")][setting]["errors"]
    return f"{fmean(errors):.2f} ({min(errors):.2f} to {max(errors):.2f})"


def _of_discount(column: str, row: Cells) -> str:
    with (RESULTS / "learning" / "digits.csv").open() as file:
        rows = [one for one in csv.DictReader(file) if one["agent"] == row[0].strip("`")]
    found: dict[float, dict[str, float]] = {0.0: {}, 0.99: {}}
    for one in rows:
        found[float(one["discount"])][one["seed"]] = float(one["last_test_accuracy"])
    seeds = sorted(found[0.0].keys() & found[0.99].keys())
    if column == "seeds":
        return str(len(seeds))
    if column == "difference":
        return difference(asdict(estimate_mean([found[0.0][seed] - found[0.99][seed] for seed in seeds])))
    return percent(fmean(found[float(column.removeprefix("discount "))][seed] for seed in seeds))


def _of_decoding(column: str, row: Cells) -> str:
    with (RESULTS / "decoding" / "decoding.csv").open() as file:
        found = next(line for line in csv.DictReader(file) if line["way"] == row[0])
    if column == "an image":
        return "{:.2f} ms ({:.2f} to {:.2f})".format(
            *(float(found[key]) for key in ("milliseconds", "least", "greatest"))
        )
    if column == "by at most":
        return f"{found['largest_difference']} of 255"
    return f"{percent(float(found['share_of_values']), 1)} %"


def _cost_of_rule(found: dict[str, float] | None) -> str:
    if found is None:
        return "–"
    return "{cost_ratio:.2f} × ({cost_ratio_min:.2f} to {cost_ratio_max:.2f})".format(**found)


def _of_reward(content: dict[str, Any], column: str, row: Cells) -> str:
    reward = content["rewards"][arm_of(row[0])]
    if column == "time of an update":
        costs = [reward.get(f"cost_ratio{end}") for end in ("", "_min", "_max")]
        return "–" if None in costs else "{:.2f} × ({:.2f} to {:.2f})".format(*costs)
    kinds = {
        "all updates": "pearson",
        "second half of the run": "pearson_second_half",
        "between temperatures": "between_temperatures",
    }
    kind = kinds[column]
    return f"{reward[kind]:.2f}".replace("-", "−") if kind in reward else "–"


def _of_credit(calibrators: dict[str, Any], column: str, row: Cells) -> str:
    found = calibrators[re.findall(r"`(\w+)`", row[0])[0]]
    value = found[column.lower()]
    return "undefined" if value is None else f"{value:.2f}"


EXPECTED_ARMS = {
    "student alone": "student_alone",
    "fixed temperature, the best in hindsight": "",
    "annealing (the default)": "anneal",
    "PPO around annealing": "ppo-anneal",
}
"""The arms that the page of a run is held against, by their names there; the best fixed one differs by task."""


def expected() -> list[dict[str, Any]]:
    """Return what ``rlkd report`` says that a run's task gives: of every task of the large comparison."""
    content, usual = read("all"), DistillConfig().settings()
    tasks = []
    for task, options in content["tasks"].items():
        found, arms = content["statistics"][task], {}
        for label, arm in EXPECTED_ARMS.items():
            name = arm or found["last"]["best_fixed"]
            mean = found["last"]["arms"].get(name, {}).get("mean")
            if mean is not None and mean["interval"] is not None:
                label = label if arm else f"{label} ({name})"
                arms[label] = [round(100.0 * value, 2) for value in (mean["mean"], *mean["interval"])]
        settings = {name: options.get(name, usual[name]) for name in IDENTITY}
        seeds = found["runs"][found["baseline"]]["count"]
        tasks.append({"task": task, "settings": settings, "seeds": seeds, "arms": arms})
    return tasks


def expected_text() -> str:
    """Return the content of the file that holds them."""
    return json.dumps(expected(), indent=1) + "\n"


if __name__ == "__main__":
    EXPECTED.write_text(expected_text())
    for document in DOCUMENTS:
        written = filled(document.read_text())
        if written != document.read_text():
            document.write_text(written)
            print(f"written: {document.relative_to(ROOT)}")
