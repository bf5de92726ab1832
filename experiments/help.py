"""What ``--help``, ``--help-all`` and ``--version`` print: few lines that most people need, or every option."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tyro

from experiments.config.common import CommandConfig
from rlkd_env.utils.options import Options, hints_of

HELP, HELP_ALL, VERSION = ("-h", "--help"), "--help-all", "--version"
_WIDTH, _COLUMN = 80, 26  # of a terminal, and where texts begin
_USAGE = {"validate": "RUN", "report": "RUN_OR_COMPARISON", "export": "RUN", "evaluate": "RUN", "board": "[RUNS]"}
"""What a command needs beside options."""
COMMON: dict[str, dict[str, str]] = {
    "distill": {
        "dataset": "digits, fashion_mnist, cifar100, image_folder, arrays, ...",
        "data_path": "folder of the data, or an .npz file",
        "teacher": "folder of rlkd teacher, a weights file, or auto",
        "teacher_model": "network of a weights file, such as resnet56",
        "student": "network that is trained, such as resnet20",
        "method": "kd, dkd, crd, ...; a wrong name lists all",
        "epochs": "passes over the images",
        "batch_size": "images an update",
        "learning_rate": "of the student's optimiser",
        "rule": "anneal (the default), fixed, lskd, dts, ...",
        "fixed_temperature": "T of --rule fixed",
        "agent": "ppo, sac, ... learn T along; pretrained acts",
        "population": "train so many students at once, keep the best",
        "student_alone": "train it without a teacher too, and compare",
        "seed": "of student, batches and agent",
        "device": "cpu, cuda:0, or auto",
        "preset": "ready-made settings; a wrong name lists all",
        "config": "a YAML or JSON file of options",
        "out": "folder of the run",
        "dry_run": "say what would be made, and stop",
        "resume": "go on with the run in the folder",
        "overwrite": "replace the run in the folder",
    },
    "teacher": {
        "dataset": "digits, fashion_mnist, cifar100, image_folder, arrays, ...",
        "data_path": "folder of the data, or an .npz file",
        "model": "network, such as resnet56; a wrong name lists all",
        "epochs": "passes over the images",
        "batch_size": "images an update",
        "optimizer": "sgd, adam or adamw",
        "learning_rate": "of the optimiser",
        "image_size": "side that images are brought to, in pixels",
        "seed": "of the first weights and the batches",
        "device": "cpu, cuda:0, or auto",
        "preset": "ready-made recipe; a wrong name lists all",
        "config": "a YAML or JSON file of options",
        "out": "folder of the teacher",
        "resume": "go on with the training in the folder",
        "overwrite": "replace the teacher in the folder",
    },
    "compare": {
        "preset": "all, digits, fashion_mnist, cifar100, ...",
        "rules": "arms with these rules",
        "fixed_temperatures": "arms at these temperatures",
        "agents": "arms with these agents",
        "student_alone": "an arm without a teacher",
        "arms": "further arms: NAME OPTIONS, such as '{rule: lskd}'",
        "tasks": "tasks, likewise",
        "seeds": "runs of every arm",
        "dataset": "digits, fashion_mnist, cifar100, image_folder, arrays, ...",
        "data_path": "folder of the data, or an .npz file",
        "teacher": "folder of rlkd teacher, a weights file, or auto",
        "student": "network that is trained",
        "epochs": "passes over the images",
        "jobs": "runs at a time; 0 takes all cores",
        "only": "a part of the runs now, such as 'digits*'",
        "dry_run": "say what would be made, and stop",
        "out": "folder of the comparison",
        "overwrite": "replace runs made with other settings",
    },
    "train-agent": {
        "preset": "digits, pretrained, ...",
        "instances": "the kinds of runs it learns from",
        "agent": "cma (evolution) or an agent such as ppo",
        "updates": "generations, or updates of an agent",
        "minutes": "the most time that training takes",
        "num_runs": "runs at once of every kind",
        "seed": "of the training",
        "device": "cpu, cuda:0, or auto",
        "out": "folder of the policy",
        "resume": "go on with the training in the folder",
        "overwrite": "replace the training in the folder",
    },
    "credit": {
        "runs": "runs to measure on",
        "dataset": "digits, fashion_mnist, cifar100, ...",
        "teacher": "folder of rlkd teacher, a weights file, or auto",
        "student": "network that is trained",
        "epochs": "passes over the images",
        "seed": "of the first run",
        "out": "folder of credit.json",
    },
    "bench": {
        "preset": "gpu: the whole table, in three minutes",
        "arms": "what is measured beside plain KD",
        "seconds": "time for all of it",
        "data": "the data path alone, for 1, 2, 4, ... workers",
        "dataset": "digits, fashion_mnist, cifar100, ...",
        "student": "network that is trained",
        "batch_size": "images an update",
        "device": "cpu, cuda:0, or auto",
        "out": "folder of bench.json",
    },
}
"""The options that most people need, by command, in a few words each; the classes of the options say the rest."""


def commands_help(commands: Mapping[str, type[CommandConfig]]) -> str:
    """Return the help of ``rlkd`` itself."""
    lines = [
        "usage: rlkd COMMAND [OPTIONS]",
        "",
        "Knowledge distillation with a temperature of its own for every training instance.",
        "",
        *(line for name, kind in commands.items() for line in _entry(name, _first_sentence(kind))),
        "",
        *_entry("COMMAND --help", "the options that most people need"),
        *_entry("COMMAND --help-all", "all options of a command"),
        *_entry("--version", "the version of rlkd"),
        *_entry("--debug", "with any command: the traceback of an error"),
        "",
        "Begin with: rlkd distill",
    ]
    return "\n".join(lines)


def command_help(name: str, kind: type[CommandConfig], is_whole: bool) -> str:
    """Return the help of a command: the options that most people need, or all of them in their groups."""
    defaults = _defaults(kind)
    given = f" {_USAGE[name]}" if name in _USAGE else ""
    head = [f"usage: rlkd {name}{given} [OPTIONS]", "", *textwrap.wrap(_first_sentence(kind), _WIDTH), ""]
    if name not in COMMON or is_whole:
        body = [line for title, group in _groups(kind) for line in _group(title, group, defaults)]
        return "\n".join([*head, *body]).rstrip()
    hints = {option: hint for _, group in _groups(kind) for option, hint in _options_of(group)}
    lines = [line for option, text in COMMON[name].items() for line in _short(option, text, hints[option], defaults)]
    return "\n".join([*head, *lines, "", f"All {len(hints)} options: rlkd {name} --help-all"])


def _short(option: str, text: str, hint: Any, defaults: Mapping[str, Any]) -> list[str]:
    default = defaults.get(option)
    shown = "" if default in (None, False, True, "auto", (), {}) or str(default) in text else f" ({default})"
    flag = _flag(option) if _is_switch(hint) else f"{_flag(option)} {_value(hint)}"
    return _entry(flag, f"{text}{shown}")


def _group(title: str, kind: type[Options], defaults: Mapping[str, Any]) -> list[str]:
    """Return the options of a class without those of the groups in it, below a title."""
    documented = documented_options(kind)
    lines = [*textwrap.wrap(title, _WIDTH)] if title else []
    for option, hint in _options_of(kind):
        if option in _positional(kind):
            lines += _entry(_value(hint), documented[option])
            continue
        flag = f"{_flag(option)} {_value(hint)}"
        if _is_switch(hint):
            flag = f"{_flag(option)}, --no-{option.replace('_', '-')}"
        default = defaults.get(option)
        told = documented[option]
        if not _is_switch(hint) and default not in (None, (), {}):
            words = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
            told = f"{told} (default: {words})"
        elif default is True:
            told = f"{told} (on unless --no-{option.replace('_', '-')})"
        lines += _entry(flag, told)
    return [*lines, ""]


def _groups(kind: type[Options], title: str = "") -> Iterator[tuple[str, type[Options]]]:
    """Yield a class of options and those in it, with the titles that their docstrings give."""
    if _options_of(kind):
        yield title, kind
    for hint in hints_of(kind).values():
        if isinstance(hint, type) and issubclass(hint, Options):
            yield from _groups(hint, _first_sentence(hint))


def _options_of(kind: type[Options]) -> list[tuple[str, Any]]:
    """Return the names and types of a class's own options."""
    hints = hints_of(kind).items()
    return [(name, hint) for name, hint in hints if not (isinstance(hint, type) and issubclass(hint, Options))]


def documented_options(kind: type) -> dict[str, str]:
    """Return the text below every option of a class, as one line, with those of the classes that it extends."""
    found: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        if parent is object or not issubclass(parent, Options) or parent is Options:
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(parent))).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = ast.literal_eval(below.value) if isinstance(below.value, ast.Constant) else ""
                found[getattr(field.target, "id", "")] = " ".join(str(text).split())
    return found


def _defaults(kind: type[CommandConfig]) -> dict[str, Any]:
    """Return what every option is where nobody names it; nothing of a command that needs an argument."""
    if not _positional(kind):
        return kind().as_keywords()
    return {field.name: field.default for field in fields(kind) if field.default is not MISSING}  # type: ignore[arg-type]


def _entry(left: str, text: str) -> list[str]:
    """Return an entry of two columns, the second one wrapped."""
    lines = textwrap.wrap(text, _WIDTH - _COLUMN, break_on_hyphens=False, break_long_words=False) or [""]
    if len(left) + 4 > _COLUMN:
        return [f"  {left}", *(" " * _COLUMN + line for line in lines)]
    return [f"  {left:{_COLUMN - 2}}{lines[0]}".rstrip(), *(" " * _COLUMN + line for line in lines[1:])]


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _first_sentence(kind: type) -> str:
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].split()).replace("`", "")


def _is_switch(hint: Any) -> bool:
    return hint is bool


def _positional(kind: type[Options]) -> set[str]:
    """Return the names of the options that are written without their names."""
    return {
        name
        for name, hint in hints_of(kind).items()
        if get_origin(hint) is Annotated and tyro.conf.Positional in get_args(hint)
    }


def _value(hint: Any) -> str:
    """Return what stands for an option's value."""
    if get_origin(hint) is Annotated:
        for note in hint.__metadata__:
            if (metavar := getattr(note, "metavar", None)) is not None:
                return str(metavar)
        return _value(get_args(hint)[0])
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return _value(next(one for one in inner if one is not type(None)))
    if origin is tuple:
        return f"{_value(inner[0])} ..." if inner[-1] is Ellipsis else " ".join(map(_value, inner))
    if origin is dict:
        return "NAME VALUE ..."
    return {int: "N", float: "X"}.get(hint, "TEXT")
