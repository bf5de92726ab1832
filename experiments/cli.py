"""The ``rlkd`` command line: parsing, and errors as one line."""

from __future__ import annotations

import importlib
import io
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from experiments import config as configs
from experiments.config.common import CommandConfig
from experiments.config.presets import laid_over, read_config_file, read_layers
from experiments.help import HELP, HELP_ALL, VERSION, command_help, commands_help
from experiments.parsing import named_options, parse_options, renamed_arguments
from experiments.session.folder import CONFIG_FILE
from experiments.shadowing import check_agents
from experiments.signals import begin_command, exit_code, ignore_signals, raise_on_signals, raised, tell_stop
from rlkd_env import __version__
from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.utils.processes import is_first_process, started_processes
from rlkd_env.utils.trust import believing, module_paths, trusted_paths

_COMMANDS: dict[str, type[CommandConfig]] = {
    "distill": configs.DistillConfig,
    "teacher": configs.TeacherConfig,
    "train-agent": configs.TrainAgentConfig,
    "credit": configs.CreditConfig,
    "bench": configs.BenchConfig,
    "compare": configs.CompareConfig,
    "validate": configs.ValidateConfig,
    "report": configs.ReportConfig,
    "board": configs.BoardConfig,
    "evaluate": configs.EvaluateConfig,
    "export": configs.ExportConfig,
}
"""Options by command. Command NAME is run by the function ``run_NAME`` of the module ``experiments.commands.NAME``,
which is imported only then."""
_MODULES = {"bench": "experiments.commands.bench.command", "train-agent": "experiments.commands.train_agent.command"}
DEBUG = "--debug"
"""Option of all commands that shows the traceback of an error."""
_LONGEST_MESSAGE = 500


def parse(arguments: Sequence[str]) -> CommandConfig:
    """Read a command with its options, those of ``--preset`` and ``--config``, and those of a run that is resumed."""
    command, *rest = arguments or [""]
    if command not in _COMMANDS:
        raise _no_command(command)
    kind, rest, prog = _COMMANDS[command], renamed_arguments(rest), f"rlkd {command}"
    _show_help(command, kind, rest)
    if not kind.presets:
        return parse_options(kind, rest, prog)
    given = named_options(rest)
    below = _layers(kind, given)
    config = parse_options(kind, rest, prog, kind().replaced(below))
    return _resumed(config, {*given, *below}) if given.keys() & {"resume"} or below.get("resume") else config


def _no_command(command: str) -> UsageError:
    """Return the error for what is no command, or show what is asked for and leave."""
    if command in (*HELP, HELP_ALL):
        print(commands_help(_COMMANDS))
        sys.exit(0)
    if command == VERSION:
        print(f"rlkd {__version__}")
        sys.exit(0)
    if not command:
        return UsageError(f"a command is missing: {', '.join(_COMMANDS)}; rlkd --help tells what they do")
    return unknown_name("command", command, _COMMANDS)


def _show_help(command: str, kind: type[CommandConfig], arguments: Sequence[str]) -> None:
    """Show the help of a command and leave, if it is asked for."""
    if HELP_ALL in arguments or any(flag in arguments for flag in HELP):
        print(command_help(command, kind, is_whole=HELP_ALL in arguments))
        sys.exit(0)


def _layers(kind: type[CommandConfig], given: dict[str, str | None]) -> dict[str, Any]:
    """Return the options of the preset and, over them, of the file that arguments name.

    Where an argument names who sets the temperatures, it replaces theirs.
    """
    options = read_layers(
        given.get("preset"), given.get("config"), kind.presets, kind.option_names(), given.get("dataset")
    )
    choice = {name: given[name] for name in ("agent", "policy", "rule") if given.get(name, "None") != "None"}
    return {name: value for name, value in laid_over(options, choice).items() if name in options}


def _resumed(config: Any, chosen: set[str]) -> Any:
    """Return the config of the run in the folder, if there is one."""
    path = config.folder / CONFIG_FILE
    if not path.is_file():
        return config
    stored = read_config_file(path, _all_names())
    if foreign := stored.keys() - config.as_keywords().keys():
        owner = next((name for name, kind in _COMMANDS.items() if foreign <= {*kind.option_names()}), "another program")
        raise UsageError(f"{config.folder} is a folder of rlkd {owner}: resume it with that command")
    resumed = config.replaced({name: value for name, value in stored.items() if name not in chosen})
    for name, value in resumed.settings().items():
        if name in stored and stored[name] != value:
            raise UsageError(f"{name} is {value!r}, but the run in {config.folder} was started with {stored[name]!r}")
    return resumed


def _all_names() -> set[str]:
    """Return the names of the options of all commands."""
    return {name for kind in _COMMANDS.values() for name in kind.option_names()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and tell every error in a line.

    ``--debug`` shows where an error comes from. Otherwise the traceback of one that nobody has foreseen is in a file.

    Returns:
        0; 1 when a run diverged or failed; 2 for what the user can mend; 3 for an unforeseen error; or, after a signal
        that asked to stop, 128 and its number, which is 130 for Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    begin_command()
    _escape_what_cannot_be_printed()
    try:
        return _run([argument for argument in given if argument != DEBUG])
    except KeyboardInterrupt as stop:
        return _tell_stop(stop)
    except Exception as error:
        if (asked := raised()) is not None:  # libraries make other errors of it, such as one of their import
            return _tell_stop(asked)
        if not isinstance(error, UsageError | OSError):
            _tell_unforeseen(error, is_shown=DEBUG in given)
            return 3
        if DEBUG in given:
            traceback.print_exc()
        if is_first_process():  # the others have the same error, or have told their own
            _tell_error(str(error))
        return 2


def _run(arguments: list[str]) -> int:
    check_agents()
    named = module_paths(arguments)
    with believing(named):
        config = parse(arguments)
    if started_processes() > 1 and not isinstance(config, configs.DistillConfig):
        raise UsageError("only rlkd distill runs in several processes: start this command without torchrun")
    name = next(name for name, kind in _COMMANDS.items() if isinstance(config, kind))
    module = importlib.import_module(_MODULES.get(name, f"experiments.commands.{name}"))
    run: Callable[[Any], int] = getattr(module, f"run_{name.replace('-', '_')}")
    with believing(named | trusted_paths(config.trusted)):
        return run(config)


def _escape_what_cannot_be_printed() -> None:
    """Let names of files that are no text be printed with escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _tell_error(message: str) -> None:
    print(f"rlkd: error: {' '.join(message.split())}", file=sys.stderr)


def _tell_stop(stop: KeyboardInterrupt) -> int:
    if is_first_process():
        tell_stop("rlkd: interrupted")
    return exit_code(stop)


def _tell_unforeseen(error: Exception, is_shown: bool) -> None:
    """Tell an error that may be one of the program in a line, and write its traceback into a file or show it."""
    told = " ".join(f"{type(error).__name__}: {error}".split())
    if is_shown:
        traceback.print_exception(error)
        _tell_error(told)
        return
    with tempfile.NamedTemporaryFile("w", prefix="rlkd-error-", suffix=".log", delete=False) as file:
        traceback.print_exception(error, file=file)
    _tell_error(f"{told[:_LONGEST_MESSAGE]}; its traceback is in {file.name}, and {DEBUG} shows it")


def _tell_of_thread(ended: threading.ExceptHookArgs) -> None:
    """Tell of a library's thread that has ended by an error in a line; whoever waits for it has the error, too."""
    told = " ".join(f"{ended.exc_type.__name__}: {ended.exc_value}".split())
    print(f"rlkd: a thread has ended: {told[:_LONGEST_MESSAGE]}", file=sys.stderr)


def entry_point() -> None:
    """Run the process' command and leave with its exit code."""
    raise_on_signals()
    if DEBUG not in sys.argv:
        threading.excepthook = _tell_of_thread
    code = main()
    if started_processes() > 1:
        from experiments.session.distributed import end_at_once

        end_at_once(code)
    ignore_signals()
    sys.exit(code)
