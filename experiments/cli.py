"""The ``rlkd`` command line: parsing, and errors as one line with exit code 2."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import tyro

from experiments.config import (
    BenchConfig,
    CompareConfig,
    CreditConfig,
    DistillConfig,
    ReportConfig,
    TeacherConfig,
    TrainAgentConfig,
    ValidateConfig,
    as_arguments,
)
from experiments.config.presets import read_config_file, read_preset
from experiments.session.folder import CONFIG_FILE
from rlkd_env.errors import UsageError
from rlkd_env.runs.distributed.processes import is_first_process, started_processes

StoredConfig = DistillConfig | TeacherConfig | TrainAgentConfig
"""Configs that a folder keeps, for a run that is resumed."""
AnyConfig = StoredConfig | CreditConfig | BenchConfig | CompareConfig | ReportConfig | ValidateConfig

_COMMANDS: dict[str, Any] = {
    "distill": DistillConfig,
    "teacher": TeacherConfig,
    "train-agent": TrainAgentConfig,
    "credit": CreditConfig,
    "bench": BenchConfig,
    "compare": CompareConfig,
    "validate": ValidateConfig,
    "report": ReportConfig,
}
"""Options by command. Command NAME is run by the function ``run_NAME`` of the module ``experiments.NAME``, which is
imported only then."""
_MODULES = {"bench": "experiments.commands.bench.command", "train-agent": "experiments.commands.train_agent.command"}
_DESCRIPTION = "Knowledge distillation in which a reinforcement-learning agent sets every instance's temperature."


def parse(arguments: Sequence[str]) -> AnyConfig:
    """Read a command with its options, those of ``--config`` and those of a run that is resumed.

    Raises:
        UsageError: if an option is unknown or its value of the wrong type.
        SystemExit: after ``--help``.
    """
    config = _parse_once(arguments)
    if isinstance(config, CreditConfig | ReportConfig | ValidateConfig):
        return config
    valid = config.as_dict()
    defaults: dict[str, Any] = {}
    if config.output.preset is not None:
        defaults |= read_preset(config.output.preset, config.presets, valid)
    if config.output.config is not None:
        defaults |= read_config_file(Path(config.output.config), valid)
    if defaults:
        config = cast(StoredConfig, _parse_once([arguments[0], *as_arguments(defaults), *arguments[1:]]))
    if isinstance(config, BenchConfig | CompareConfig):
        return config
    if config.output.resume and (config.folder / CONFIG_FILE).is_file():
        stored = read_config_file(config.folder / CONFIG_FILE, valid)
        again = [arguments[0], *as_arguments(stored | defaults), *arguments[1:]]
        config = cast(StoredConfig, _parse_once(again))
        for name, value in config.settings().items():
            if name in stored and stored[name] != value:
                raise UsageError(
                    f"{name} is {value!r}, but the run in {config.folder} was started with {stored[name]!r}"
                )
    return config


def _parse_once(arguments: Sequence[str]) -> AnyConfig:
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.extras.subcommand_cli_from_dict(
                _COMMANDS,
                prog="rlkd",
                description=_DESCRIPTION,
                args=list(arguments),
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_one_line(messages.getvalue())) from None


def _one_line(box: str) -> str:
    """Take the sentence out of tyro's box, which is drawn in Unicode or in ASCII: it ends at the first rule."""
    rows = [row.strip("│| ─-") for row in box.splitlines()[1:]]
    filled = itertools.dropwhile(lambda row: not row, rows)
    sentence = " ".join(itertools.takewhile(bool, filled))
    hint = re.search(r"Perhaps you meant:\s+(--\S+)", box.replace("│", " "))
    return sentence + (f". Did you mean {hint.group(1)}?" if hint else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: without the program's name; None takes the process' own.

    Returns:
        The exit code: 0, 1 when a run diverged, 2 for bad input, 130 when interrupted.
    """
    try:
        config = parse(sys.argv[1:] if arguments is None else list(arguments))
        if started_processes() > 1 and not isinstance(config, DistillConfig):
            raise UsageError("only rlkd distill runs in several processes: start this command without torchrun")
        name = next(name for name, kind in _COMMANDS.items() if isinstance(config, kind))
        module = importlib.import_module(_MODULES.get(name, f"experiments.commands.{name}"))
        run: Callable[[Any], int] = getattr(module, f"run_{name.replace('-', '_')}")
        return run(config)
    except (UsageError, OSError) as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    if is_first_process():  # the others have the same error, or have told their own
        print(f"rlkd: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def entry_point() -> None:
    """Run the process' command and leave with its exit code."""
    code = main()
    if started_processes() > 1:
        from experiments.session.distributed import end_at_once

        end_at_once(code)
    sys.exit(code)
