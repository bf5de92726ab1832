"""The ``rlkd`` command line: parsing, and errors as one line with exit code 2."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from experiments import config as configs
from experiments.config.common import CommandConfig
from experiments.config.presets import laid_over, read_config_file, read_layers
from experiments.parsing import named_options, parse_options, renamed_arguments
from experiments.session.folder import CONFIG_FILE
from experiments.shadowing import check_agents
from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.utils.torchrun import is_first_process, started_processes
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
}
"""Options by command. Command NAME is run by the function ``run_NAME`` of the module ``experiments.commands.NAME``,
which is imported only then."""
_MODULES = {"bench": "experiments.commands.bench.command", "train-agent": "experiments.commands.train_agent.command"}
_DESCRIPTION = "Knowledge distillation in which a reinforcement-learning agent sets every instance's temperature."


def parse(arguments: Sequence[str]) -> CommandConfig:
    """Read a command with its options, those of ``--preset`` and ``--config``, and those of a run that is resumed."""
    command, *rest = arguments or [""]
    if command not in _COMMANDS:
        raise _no_command(command)
    kind, rest, prog = _COMMANDS[command], renamed_arguments(rest), f"rlkd {command}"
    if not kind.presets:
        return parse_options(kind, rest, prog)
    given = named_options(rest)
    below = _layers(kind, given)
    config = parse_options(kind, rest, prog, kind().replaced(below))
    return _resumed(config, {*given, *below}) if given.keys() & {"resume"} or below.get("resume") else config


def _no_command(command: str) -> UsageError:
    """Return the error for what is no command, or show the help that is asked for and leave."""
    if command in ("-h", "--help"):
        shown = {name: _documented(kind) for name, kind in _COMMANDS.items()}
        tyro.extras.subcommand_cli_from_dict(shown, prog="rlkd", description=_DESCRIPTION, args=["--help"])
    if not command:
        return UsageError(f"a command is missing: {', '.join(_COMMANDS)}; rlkd --help tells what they do")
    return unknown_name("command", command, _COMMANDS)


def _documented(kind: type[CommandConfig]) -> Callable[[], None]:
    def command() -> None:
        """Stand for the command in the list of all; its options are read only when it is named."""

    command.__doc__ = kind.__doc__
    return command


def _layers(kind: type[CommandConfig], given: dict[str, str | None]) -> dict[str, Any]:
    """Return the options of the preset and, over them, of the file that arguments name.

    Where an argument names who sets the temperatures, it replaces theirs.
    """
    options = read_layers(given.get("preset"), given.get("config"), kind.presets, kind.option_names())
    choice = {name: given[name] for name in ("agent", "policy", "rule") if given.get(name, "None") != "None"}
    return {name: value for name, value in laid_over(options, choice).items() if name in options}


def _resumed(config: Any, chosen: set[str]) -> Any:
    """Return the config of the run in the folder, if there is one."""
    path = config.folder / CONFIG_FILE
    if not path.is_file():
        return config
    stored = read_config_file(path, config.as_keywords())
    resumed = config.replaced({name: value for name, value in stored.items() if name not in chosen})
    for name, value in resumed.settings().items():
        if name in stored and stored[name] != value:
            raise UsageError(f"{name} is {value!r}, but the run in {config.folder} was started with {stored[name]!r}")
    return resumed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return 0, 1 when a run diverged, 2 for bad input, or 130 when interrupted."""
    try:
        check_agents()
        given = sys.argv[1:] if arguments is None else list(arguments)
        named = module_paths(given)
        with believing(named):
            config = parse(given)
        if started_processes() > 1 and not isinstance(config, configs.DistillConfig):
            raise UsageError("only rlkd distill runs in several processes: start this command without torchrun")
        name = next(name for name, kind in _COMMANDS.items() if isinstance(config, kind))
        module = importlib.import_module(_MODULES.get(name, f"experiments.commands.{name}"))
        run: Callable[[Any], int] = getattr(module, f"run_{name.replace('-', '_')}")
        with believing(named | trusted_paths(config.trusted)):
            return run(config)
    except (UsageError, OSError) as error:
        if is_first_process():  # the others have the same error, or have told their own
            print(f"rlkd: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def entry_point() -> None:
    """Run the process' command and leave with its exit code."""
    code = main()
    if started_processes() > 1:
        from experiments.session.distributed import end_at_once

        end_at_once(code)
    sys.exit(code)
