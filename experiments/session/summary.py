"""The end of a run: the one evaluation on the test set, ``summary.json`` and the table that is printed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from agents.recording.selection import StudentSelection
from agents.recording.timing import PartTimer
from agents.rules.simple import FixedTemperature
from experiments.config import OutputConfig, config_hash
from experiments.session.detections import show_detections
from experiments.session.folder import AGENT_FILE, SUMMARY_FILE, Summary, check_folder
from experiments.session.provenance import processor, versions
from experiments.session.session import DistillSession, student_of
from experiments.session.telling.table import print_summary
from rlkd_env.data import ImageSet, count_duplicates
from rlkd_env.errors import UsageError
from rlkd_env.models.ensemble import Teachers
from rlkd_env.models.normalization import Renormalized
from rlkd_env.runs.build import build_run
from rlkd_env.runs.run import DistillationRun
from rlkd_env.runs.teacher import teacher_accuracy
from rlkd_env.sampling.exploration import Explorer
from rlkd_env.tasks import Evaluation, Task
from rlkd_env.utils.choices import KeptEpoch
from rlkd_env.utils.files import read_json, reading, tensors_hash, write_json

_PARTS = ("agent", "environment", "evaluation", "logging", "checkpoint")


def train_student_alone(session: DistillSession) -> tuple[DistillationRun, StudentSelection]:
    """Train a session's student without distillation, from the same start on the same batches; return its run too.

    A student that the method changes is trained as it is without.
    """
    alone = session.config.run.replaced(method="cross_entropy", method_options={})
    run = build_run(alone, session.source, session.run.teacher, session.objects.student)
    selection = StudentSelection(PartTimer())
    run.add_hook(selection)
    run.reset(session.config.output.seed)
    run.advance(FixedTemperature(1.0))
    return run, selection


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
    if session.tracked is not None:
        session.tracked.finish(summary)
    return summary


def summarize(session: DistillSession) -> dict[str, Any]:
    """Evaluate on the test set, once, and return the run's summary as plain values."""
    config, run, records = session.config, session.run, session.records
    selection, seconds = records.selection, records.timer.seconds
    learns = session.phases.learns
    test = session.test_set()
    kept = session.kept
    results = _TestResults(run.task, test)
    found = None if kept is None else results.of(kept.network)
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
        "kept": config.kept_epoch,
        "student_test_accuracy": _accuracy(found),
        "student_test_details": _details(found),
        "student_val_accuracy": 0.0 if kept is None else kept.accuracy,
        "student_epoch": 0 if kept is None else kept.epoch,
        "student_sha256": None if kept is None else tensors_hash(kept.network.state_dict()),
        **_of_epoch(session, selection, "last", results),
        **_of_epoch(session, selection, "best", results),
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
        "why_not_captured": session.why_plain,
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
        summary |= _student_alone(session, results)
    return summary


class _TestResults:
    """What students reach on the test images, if there are any; the same weights are measured once."""

    def __init__(self, task: Task, test: ImageSet | None) -> None:
        self._task, self._test = task, test
        self._known: dict[str, Evaluation] = {}

    def of(self, student: nn.Module) -> Evaluation | None:
        """Return what a student reaches, or None without test images."""
        if self._test is None:
            return None
        key = tensors_hash(student.state_dict())
        if key not in self._known:
            self._known[key] = self._task.evaluate(student, self._test)
        return self._known[key]


def _of_epoch(
    session: DistillSession, selection: StudentSelection, epoch: KeptEpoch, results: _TestResults
) -> dict[str, Any]:
    """Return the figures of the student of the last or of the best epoch, by the names that they have in a summary."""
    student, name = selection.of(epoch), f"student_{epoch}"
    found = None if student is None else results.of(session.network(student.weights))
    return {
        f"{name}_test_accuracy": _accuracy(found),
        f"{name}_test_details": _details(found),
        f"{name}_val_accuracy": 0.0 if student is None else student.accuracy,
        f"{name}_epoch": 0 if student is None else student.epoch,
        f"{name}_sha256": None if student is None else tensors_hash(student.weights),
    }


def _student_alone(session: DistillSession, results: _TestResults) -> dict[str, Any]:
    """Train the student without a teacher; return the figures of the one that would be kept, and of the last one."""
    run, alone = train_student_alone(session)
    kept, last = alone.of(session.config.kept_epoch), alone.of("last")
    networks = [None if one is None else student_of(run, one.weights) for one in (kept, last)]
    found = [None if one is None else results.of(one) for one in networks]
    return {
        "student_alone_test_accuracy": _accuracy(found[0]),
        "student_alone_val_accuracy": 0.0 if kept is None else kept.accuracy,
        "student_alone_last_test_accuracy": _accuracy(found[1]),
    }


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
    run, kept = session.run, session.kept
    if session.folder is None or run.task.metric != "AP" or kept is None:
        return
    policy, class_names = session.phases.acting_policy(), session.source.class_names
    show_detections(session.folder, run, kept.network, policy, class_names)


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
