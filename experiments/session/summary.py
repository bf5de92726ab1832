"""The end of a run: the one evaluation on the test set, ``summary.json`` and the table that is printed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from agents.recording.selection import StudentSelection
from agents.recording.timing import PartTimer
from agents.rules.simple import FixedTemperature
from experiments.config import OutputConfig, config_hash
from experiments.session.detections import show_detections
from experiments.session.folder import AGENT_FILE, SUMMARY_FILE, Summary, check_folder
from experiments.session.population.table import CANDIDATES, members_table, percent
from experiments.session.provenance import ACCURACY, metric_of, processor, versions
from experiments.session.session import DistillSession
from rlkd_env.data import ImageSet, count_duplicates
from rlkd_env.errors import UsageError
from rlkd_env.models.ensemble import Teachers
from rlkd_env.models.normalization import Renormalized
from rlkd_env.runs.build import build_run
from rlkd_env.runs.run import DistillationRun
from rlkd_env.runs.teacher import teacher_accuracy
from rlkd_env.sampling.exploration import Explorer
from rlkd_env.tasks import Evaluation
from rlkd_env.utils.files import read_json, reading, tensors_hash, write_json

_PARTS = ("agent", "environment", "evaluation", "logging", "checkpoint")


def train_student_alone(session: DistillSession) -> StudentSelection:
    """Train a session's student without distillation, from the same start on the same batches."""
    alone = session.config.run.replaced(method="cross_entropy", method_options={})
    run = build_run(alone, session.source, session.run.teacher, session.objects.student)
    selection = StudentSelection(PartTimer())
    run.add_hook(selection)
    run.reset(session.config.output.seed)
    run.advance(FixedTemperature(1.0))
    return selection


def complete(
    session: DistillSession, leading: Callable[[DistillSession], AbstractContextManager[Any]] = nullcontext
) -> dict[str, Any]:
    """Make a prepared run in the context ``leading``, and then write and return its summary."""
    with ExitStack() as stack:
        with leading(session):
            stack.enter_context(session.alone_in_folder())
            session.execute()
        return write_summary(session)


def write_summary(session: DistillSession, together: int = 1) -> dict[str, Any]:
    """Write and return the summary of a run that is over, and that was perhaps one of several made together."""
    show_results(session)
    summary = summarize(session) | ({"together": together} if together > 1 else {})
    if session.folder is not None:
        write_json(session.folder / SUMMARY_FILE, summary)
        if session.config.output.tensorboard:
            from agents.recording.overview import write_figures  # TensorBoard takes long to import

            write_figures(session.folder, summary, session.settings.main)
    return summary


def summarize(session: DistillSession) -> dict[str, Any]:
    """Evaluate on the test set, once, and return the run's summary as plain values."""
    config, run, records = session.config, session.run, session.records
    selection, seconds = records.selection, records.timer.seconds
    learns = session.phases.learns
    test = session.test_set()
    kept, last_student = session.kept, selection.last_student
    best = None if kept is None else _evaluate(session, kept.network, test)
    last = None if last_student is None else _evaluate(session, session.network(last_student), test)
    summary: dict[str, Any] = {
        "dataset": config.run.data.dataset,
        "metric": run.task.metric,
        "student": session.student_name,
        "method": config.run.distillation.method,
        "temperature_from": session.choice.label,
        "rule_options": config.agent.rule_options if config.agent.rule_or_default is not None else None,
        "calibrator": config.agent.calibrator if learns else None,
        "exploration": asdict(run.sampler.settings) if isinstance(run.sampler, Explorer) else None,
        "learn_interval": config.agent.learn_interval if learns else None,
        "data": _data_figures(run, test),
        "fingerprints": session.fingerprints | ({} if test is None else {"test": test.fingerprint()}),
        "normalization": _normalization(run),
        "teacher_val_accuracy": session.teacher_accuracy,
        "teacher_test_accuracy": None if test is None else teacher_accuracy(run, test),
        "student_test_accuracy": _accuracy(best),
        "student_test_details": _details(best),
        "student_val_accuracy": selection.best_accuracy if kept is None else kept.accuracy,
        "student_epoch": selection.best_epoch if kept is None else kept.epoch,
        "student_last_test_accuracy": _accuracy(last),
        "student_last_test_details": _details(last),
        "student_last_val_accuracy": selection.last_accuracy,
        "student_sha256": None if kept is None else tensors_hash(kept.network.state_dict()),
        "student_last_sha256": None if last_student is None else tensors_hash(last_student),
        "mean_temperature": records.mean_temperature,
        "diverged": records.diverged,
        "stopped_early": records.stopped_early,
        "epochs": records.steps // run.steps_per_epoch,
        "steps": records.steps,
        "seconds": sum(seconds.values()),
        "cpu_seconds": records.cpu_seconds,
        **{f"{part}_seconds": seconds[part] for part in _PARTS},
        **_step_costs(session),
        "seed": config.output.seed,
        "device": str(run.device),
        "processes": run.num_processes,
        "threads": torch.get_num_threads(),
        "processor": processor(run.device),
        "versions": versions(),
        "config_hash": config_hash(config.settings()),
        "settings": config.settings(),
        **session.figures(test),
    }
    if session.objects.names():
        summary["objects"] = session.objects.names()
    if config.output.student_alone:
        alone = train_student_alone(session)
        networks = [None if one is None else session.network(one) for one in (alone.best_student, alone.last_student)]
        best, last = (None if network is None else _evaluate(session, network, test) for network in networks)
        summary["student_alone_test_accuracy"] = _accuracy(best)
        summary["student_alone_val_accuracy"] = alone.best_accuracy
        summary["student_alone_last_test_accuracy"] = _accuracy(last)
    return summary


def check_run_folder(folder: Path, output: OutputConfig) -> bool:
    """Check that a run may write into a folder; print the table again and return True if it is finished already."""
    check_folder(folder, output.overwrite, output.resume)
    if output.resume and (folder / AGENT_FILE).is_file():
        raise UsageError(
            f"the agent of the run in {folder} has diverged, and would do so again: choose a lower learning_rate among "
            "--agent-options, or a rule, with --overwrite"
        )
    is_finished = output.resume and (folder / SUMMARY_FILE).is_file()
    if is_finished:
        print(f"the run in {folder} is finished already")
        with reading(folder / SUMMARY_FILE):
            print_summary(read_json(folder / SUMMARY_FILE, Summary), folder)
    return is_finished


def _data_figures(run: DistillationRun, test: ImageSet | None) -> dict[str, int | None]:
    """Return the sizes of the data's parts, and how many test images are training images too."""
    splits = run.splits
    return {
        "train": len(splits.train),
        "probe": len(run.probe),
        "validation": len(splits.validation),
        "teacher_train": len(splits.teacher_train),
        "test": None if test is None else len(test),
        "test_duplicates": None if test is None else count_duplicates(splits.teacher_train, test),
    }


def _normalization(run: DistillationRun) -> dict[str, Any]:
    """Return the mean and standard deviation that images are normalised by: the student's, and each teacher's."""
    preprocessing = run.splits.train.preprocessing
    given = {"mean": list(preprocessing.mean), "std": list(preprocessing.std)}

    def of(network: nn.Module) -> dict[str, Any]:
        if not isinstance(network, Renormalized):
            return given
        mean, std = network.constants
        return {"mean": list(mean), "std": list(std)}

    if isinstance(run.teacher, Teachers):
        return {"student": given, "teacher": [of(network) for network in run.teacher.networks]}
    return {"student": given, "teacher": of(run.teacher)}


def show_results(session: DistillSession) -> None:
    """Write the detections that the report shows, if the run is a detector's and there is a student."""
    run, weights = session.run, session.records.selection.best_student
    if session.folder is None or run.task.metric != "AP" or weights is None:
        return
    policy, class_names = session.phases.acting_policy(), session.source.class_names
    show_detections(session.folder, run, session.network(weights), policy, class_names)


def _evaluate(session: DistillSession, network: nn.Module, test: ImageSet | None) -> Evaluation | None:
    return None if test is None else session.run.task.evaluate(network, test)


def _accuracy(evaluation: Evaluation | None) -> float | None:
    return None if evaluation is None else float(evaluation.accuracy)


def _details(evaluation: Evaluation | None) -> dict[str, float]:
    return {} if evaluation is None else evaluation.details


def _step_costs(session: DistillSession) -> dict[str, float | None]:
    """Return the milliseconds of an update in the warm-up and with the agent."""
    phases, steps, seconds = session.phases, session.records.steps, session.records.timer.seconds
    warmup, acting = min(phases.warmup_steps, steps), max(steps - phases.warmup_steps, 0)
    with_agent = seconds["environment"] + seconds["agent"] - phases.warmup_seconds
    return {
        "fixed_step_ms": 1e3 * phases.warmup_seconds / warmup if warmup else None,
        "step_ms": 1e3 * with_agent / acting if acting else None,
    }


def print_summary(summary: dict[str, Any], folder: object) -> None:
    """Print the table of a finished run."""
    metric = metric_of(summary)
    title = f"{summary['dataset']}, {summary['method']}, temperatures from {summary['temperature_from']}"
    if metric != ACCURACY:
        title += f", {metric}"
    table = Table(title=title)
    for column in ("", "validation", "test"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("teacher", *(percent(summary.get(f"teacher_{part}_accuracy")) for part in ("val", "test")))
    population = summary.get("population")
    best = f"student, best epoch ({summary['student_epoch']})"
    if population is not None and population["keep"] != "best":
        best = f"student, {CANDIDATES[population['keep']]}"
    for name, key in (("student alone", "student_alone"), (best, "student"), ("student, last epoch", "student_last")):
        if f"{key}_test_accuracy" in summary:
            table.add_row(name, *(percent(summary[f"{key}_{part}_accuracy"]) for part in ("val", "test")))
    console = Console()
    console.print(table)
    if population is not None:
        console.print(members_table(population))
    if duplicates := summary["data"]["test_duplicates"]:
        told = f"{duplicates} of the {summary['data']['test']} test images are training images too"
        console.print(told, highlight=False)
    if summary.get("stopped_early"):
        patience = summary["settings"]["patience"]
        told = f"stopped after epoch {summary['epochs']}: the last {patience} brought no better student"
        console.print(told, highlight=False)
    total = summary["seconds"] or 1.0
    parts = ("environment", "agent", "evaluation", "logging")
    shares = ", ".join(f"{part} {summary[f'{part}_seconds'] / total:.0%}" for part in parts)
    console.print(f"{summary['steps']} updates in {total:.1f} s: {shares}", highlight=False)
    if summary["fixed_step_ms"] is not None and summary["step_ms"] is not None:
        extra = summary["step_ms"] - summary["fixed_step_ms"]
        console.print(
            f"an update takes {summary['fixed_step_ms']:.2f} ms at the fixed temperature "
            f"and {summary['step_ms']:.2f} ms with {summary['temperature_from']}, which costs {extra:.2f} ms",
            highlight=False,
        )
    console.print(f"everything is in {folder}; curves: tensorboard --logdir {folder}", highlight=False, soft_wrap=True)
