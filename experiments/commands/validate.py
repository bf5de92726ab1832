"""``rlkd validate``: a run made again from its summary alone, and what differs."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.config import DistillConfig, ValidateConfig, config_hash
from experiments.next_command import tell_next
from experiments.report.run.loading import RunRecord
from experiments.session.checkpoints import RunInterrupted
from experiments.session.folder import (
    BEST_STUDENT_FILE,
    CONFIG_FILE,
    LAST_STUDENT_FILE,
    STUDENT_FILE,
    SUMMARY_FILE,
    TRACE_FILE,
    Summary,
    check_folder,
)
from experiments.session.prepare import prepare
from experiments.session.summary import complete
from experiments.signals import exit_code, tell_stop
from experiments.threads import using_threads
from rlkd_env.errors import UsageError
from rlkd_env.models.engine import select_device
from rlkd_env.runs.fingerprints import NAMES, changed_parts
from rlkd_env.utils.files import read_json, read_tensors, reading, tensors_hash
from rlkd_env.utils.options import Threads, read_value, renamed

_SURROUNDINGS = ("device", "processor", "threads", "processes", "versions")  # what a run's rounding follows from
_OF_BITS = ("student_epoch", "student_best_epoch", "mean_temperature", "population")
_OF_FILE = {
    STUDENT_FILE: "student_sha256",
    LAST_STUDENT_FILE: "student_last_sha256",
    BEST_STUDENT_FILE: "student_best_sha256",
}


@dataclass(frozen=True)
class Check:
    """A figure of a summary, what it is in the run that was made again, and whether that is near enough."""

    name: str
    recorded: Any
    again: Any
    holds: bool


def run_validate(config: ValidateConfig) -> int:
    """Make a run again and print what differs; return 1 if anything does not hold."""
    path = Path(config.summary)
    path = path / SUMMARY_FILE if path.is_dir() else path
    recorded = read_json(path, Summary)
    if "settings" not in recorded or "student_sha256" not in recorded:
        raise UsageError(f"{path} is not the summary of a run, or of an older version: it has no settings to repeat")
    if recorded.get("objects"):
        raise UsageError(
            f"the run of {path} was made in Python with objects ({', '.join(recorded['objects'])}), which a summary "
            "does not hold: make it again there"
        )
    record = (
        RunRecord.read(path.parent) if (path.parent / CONFIG_FILE).exists() else None
    )  # which tells what is damaged
    with ExitStack() as stack:
        out = config.out or stack.enter_context(tempfile.TemporaryDirectory())
        with reading(path):
            distill = _config_of(recorded, out, config.progress)
            threads = read_value("threads", recorded["threads"], Threads)
        if config.out:
            check_folder(distill.folder, overwrite=False, resume=False)
        stack.enter_context(using_threads(threads))
        try:
            complete(prepare(distill))
        except RunInterrupted as stop:
            tell_stop("interrupted: nothing has been compared")
            return exit_code(stop)
        again = read_json(distill.folder / SUMMARY_FILE)
        old_trace, new_trace = (_hash_of(folder / TRACE_FILE) for folder in (path.parent, distill.folder))
    with reading(path):
        changed = changed_parts(recorded.get("fingerprints", {}), again["fingerprints"])
        reasons = why_bits_may_differ(recorded, again)
        figures = compare(recorded, again, config.tolerance, bool(reasons))
        checks = [*_settings_and_files(recorded, path.parent), *figures]
        if record is not None:
            settings = config_hash(renamed(record.config))
            checks.append(Check(CONFIG_FILE, recorded["config_hash"], settings, recorded["config_hash"] == settings))
        if not reasons and None not in (old_trace, new_trace):
            checks.append(Check(TRACE_FILE, old_trace, new_trace, old_trace == new_trace))
    _print(checks, reasons, config.tolerance)
    if changed:
        print(f"the cause: changed since the recorded run: the {' and the '.join(changed)}")
    holds = all(check.holds for check in checks)
    _tell_next(path, config.out, holds)
    return 0 if holds else 1


def _tell_next(path: Path, out: str | None, holds: bool) -> None:
    """Tell how to go on: with the run if it holds, otherwise with the one that was made again, once it is kept."""
    if holds and (path.parent / STUDENT_FILE).is_file():
        tell_next("rlkd", "export", str(path.parent))
    elif out:
        tell_next("rlkd", "report", out)
    else:
        tell_next("rlkd", "validate", str(path), "--out", f"{path.parent}-again")


def why_bits_may_differ(recorded: dict[str, Any], again: dict[str, Any]) -> list[str]:
    """Return the reasons why a run that is made again may be another one; none means that bits have to be equal."""
    reasons = [
        f"{name} was {recorded[name]}, is {again[name]}"
        for name in _SURROUNDINGS
        if name != "versions" and recorded[name] != again[name]
    ]
    old, new = recorded["versions"], again["versions"]
    packages = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    reasons += [f"{name} was {old.get(name)}, is {new.get(name)}" for name in packages]
    if "together" in recorded:
        reasons.append(f"it was computed as one with {recorded['together'] - 1} others")
    if not reasons and recorded["device"] != "cpu":
        reasons.append("a GPU adds up in an order of its own")
    return reasons


def compare(recorded: dict[str, Any], again: dict[str, Any], tolerance: float, is_tolerant: bool) -> list[Check]:
    """Compare all figures of two summaries but times and surroundings.

    Accuracies may differ by the tolerance if bits may differ; then what follows from bits, but is no accuracy, is not
    compared.
    """
    checks = []
    for name in recorded:
        is_elsewhere = name in (*_SURROUNDINGS, "settings", "config_hash") or name.endswith(("seconds", "_ms"))
        if is_elsewhere or name not in again:
            continue
        old, new = recorded[name], again[name]
        if name == "fingerprints":
            # Elsewhere a teacher that the data set trains itself is another one, and so may decoded pixels be.
            found = {key: (old[key], new.get(key)) for key in old if not is_tolerant}
            checks += [Check(f"fingerprint of {NAMES[key]}", *pair, pair[0] == pair[1]) for key, pair in found.items()]
        elif name.endswith("_accuracy") and is_tolerant and None not in (old, new):
            checks.append(Check(name, old, new, abs(old - new) <= tolerance))
        elif not (is_tolerant and name in (*_OF_BITS, *_OF_FILE.values())):
            checks.append(Check(name, old, new, old == new))
    return checks


def _config_of(recorded: dict[str, Any], out: str, progress: bool) -> DistillConfig:
    """Return the options of a summary, on the device that it names if this machine has it."""
    kept = {"keep_epoch": recorded.get("kept", "best")}  # what was kept by those that do not say it
    config = DistillConfig.from_keywords(recorded["settings"], **kept)
    if "population" in recorded:
        config = config.replaced(run_mode=recorded["population"]["mode"])
    try:
        device = str(select_device(recorded["device"]))
    except UsageError:
        device = "auto"
    return config.replaced(device=device, out=out, progress=progress, tensorboard=False, force=True)


def _settings_and_files(recorded: dict[str, Any], folder: Path) -> list[Check]:
    """Compare what lies beside the summary with what it says: its settings and the students in its folder."""
    settings_hash = config_hash(recorded["settings"])
    checks = [Check("settings", recorded["config_hash"], settings_hash, recorded["config_hash"] == settings_hash)]
    for name, key in _OF_FILE.items():
        if (found := _hash_of(folder / name)) is not None:
            checks.append(Check(name, recorded[key], found, recorded[key] == found))
    return checks


def _hash_of(file: Path) -> str | None:
    """Return the hash of a file's tensors, or None if there is no file."""
    if not file.is_file():
        return None
    try:
        return tensors_hash(read_tensors(file)[0])
    except UsageError:
        return "damaged"


def _print(checks: list[Check], reasons: list[str], tolerance: float) -> None:
    """Print the accuracies, and whatever else is not the same."""
    table = Table(box=box.SIMPLE)
    for column in ("figure", "recorded", "again", ""):
        table.add_column(column, no_wrap=column == "figure")
    for check in checks:
        is_same = check.recorded == check.again
        if check.name.endswith("_accuracy") or not is_same:
            verdict = "same" if is_same else "near" if check.holds else "differs"
            table.add_row(check.name, _text(check.recorded), _text(check.again), verdict)
    console = Console()
    console.print(table)
    expected = f"accuracies may differ by {tolerance:g}: {'; '.join(reasons)}" if reasons else "bits have to be equal"
    console.print(expected, highlight=False)
    count = sum(not check.holds for check in checks)
    told = f"{count} of {len(checks)} figures do not hold" if count else f"all {len(checks)} figures hold"
    console.print(told, highlight=False)


def _text(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 16 else f"{text[:14]} …"
