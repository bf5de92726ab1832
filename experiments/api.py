"""Distillation from Python: what ``rlkd distill`` does, with networks, data and policies as objects."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from agents.learned import TemperaturePolicy
from experiments.config import DistillConfig
from experiments.config.presets import laid_over, read_layers
from experiments.session.folder import SUMMARY_FILE, check_folder
from experiments.session.objects import read_objects
from experiments.session.prepare import prepare
from experiments.session.session import DistillSession
from experiments.session.summary import complete
from experiments.threads import using_threads
from rlkd_env.errors import UsageError
from rlkd_env.utils.randomness import load_random_state, random_state
from rlkd_env.utils.trust import believing, module_paths, trusted_paths

_SET_OTHERWISE = {**dict.fromkeys(("agent", "policy", "rule"), "temperature"), "dataset": "data", "out": "folder"}
"""Options of the command line that are arguments of another name here."""
_OPTION = re.compile(r"(rlkd [\w-]+(?: --[\w-]+ [^\s,;]+)*)|--([a-z][\w-]*)")
"""A whole command, or an option of one."""


@dataclass(frozen=True, eq=False)
class DistillationResult:
    """What a distillation gives.

    Attributes:
        student: the student of the last epoch, or with ``keep_epoch="best"`` of the best one on the validation images,
            as a plain network in evaluation mode on the CPU; of a population, what ``keep`` asks for.
        last_student: the student of the last epoch, likewise; of a population, that of the best member.
        members: the students of a population's members by their names, likewise; a run of one student has none.
        validation_accuracy: the accuracy of ``student`` on the validation images; of a detector, its AP.
        test_accuracy: the same on the test images, which nothing has been chosen by; None without test images.
        teacher_test_accuracy: the teacher's accuracy on the test images; None without test images.
        history: one list a quantity, with one value an epoch; ``pandas.DataFrame(result.history)`` is a table of them.
        policy: the temperature policy that an agent has learned; None if no agent has learned.
        folder: the run's folder; None if none was asked for.
        summary: every figure and setting of the run by name, as ``summary.json`` holds them.
    """

    student: nn.Module
    last_student: nn.Module
    members: dict[str, nn.Module]
    validation_accuracy: float
    test_accuracy: float | None
    teacher_test_accuracy: float | None
    history: dict[str, list[Any]]
    policy: TemperaturePolicy | None
    folder: Path | None
    summary: dict[str, Any]

    def __repr__(self) -> str:
        figures = {
            "validation": self.validation_accuracy,
            "test": self.test_accuracy,
            "teacher's test": self.teacher_test_accuracy,
        }
        told = ", ".join(f"{name} {value:.2%}" for name, value in figures.items() if value is not None)
        summary = self.summary
        return (
            f"<{type(self).__name__}: {type(self.student).__name__}, {summary['metric']}: {told}; {summary['method']}, "
            f"temperatures from {summary['temperature_from']}, {summary['epochs']} epochs in {summary['seconds']:.1f} s"
            + (f", in {self.folder}>" if self.folder is not None else ">")
        )


def distill(
    teacher: nn.Module | str | Path | Sequence[str | Path],
    student: nn.Module | Callable[[], nn.Module] | str,
    data: Any,
    temperature: Any = None,
    *,
    method: Any = None,
    epochs: int | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
    test: Any = None,
    validation: Any = None,
    **settings: Any,
) -> DistillationResult:
    """Distil a teacher into a student.

    The run is the one that the command ``rlkd distill`` makes: the same settings and seed give the same student.

    Args:
        teacher: a network that maps the images to logits ``(N, C)``, which stays as it is; or the path of a file of
            weights, or several, whose logits are averaged; or ``"auto"``, which trains the teacher of a small data
            set once and keeps it.
        student: a network, of which a copy is trained from its present weights on; or a function without arguments that
            returns a fresh one, whose weights follow from the seed; or a name such as ``"resnet20"``,
            ``"torchvision/resnet18"`` or ``"package.module:factory"``; or ``"auto"``.
        data: one of

            * arrays or tensors ``(images, classes)``, or a dict of them with the keys ``x_train``, ``y_train`` and
              perhaps ``x_validation``, ``y_validation``, ``x_test`` and ``y_test``. Images are ``(n, height, width)``
              or have 1 or 3 channels first or last, as uint8 or from 0 to 1. Networks get them normalised by the mean
              and standard deviation of each channel;
            * a torch ``Dataset`` of ``(image, class)``, whose images networks get as they are;
            * the path of an ``.npz`` file with such arrays, or of a folder with one folder of images per class;
            * the name of a data set, such as ``"digits"`` or ``"cifar100"``;
            * a :class:`~rlkd_env.data.DataSource`.
        temperature: what sets the temperatures, one of

            * a number, for plain KD; with the suffix s, as in ``"2s"``, in standard deviations of the teacher's logits;
            * a rule by name, such as ``"lskd"``, its class, or a :class:`~agents.rules.base.Rule`;
            * a learned policy: ``"pretrained"`` is the package's, a path that of a saved one; or any function from the
              outputs of a batch to a :class:`~rlkd_env.instances.temperature.Temperature`;
            * an agent that learns along: ``"ppo"``, ``"sac"``, ... or a class of stable-baselines3.

            None is what a preset says, or else ``"anneal"``.
        method: the KD method by name, or its class; None is what a preset says, or else ``"kd"``.
        epochs: passes over the training images; None is what a preset says, or else 120.
        seed: of the student's weights, the order of the images, and the agent.
        folder: where to keep the students, the learned policy, the records and a checkpoint, as ``rlkd distill`` does;
            None leaves nothing on the disk.
        progress: whether to show a progress bar, in a terminal or a notebook.
        test: test images in the form of ``data``, a pair of arrays or a ``Dataset``; they are looked at once, at the
            end.
        validation: likewise, images that choose the student; None takes some of the training images.
        settings: any other option of ``rlkd distill`` by its name with underscores, such as ``learning_rate=0.1``,
            ``batch_size=128``, ``device="cuda"``, ``preset="paper"``, ``population=8``, ``resume=True`` or
            ``rule_options={"tau": 2}``.
            Parts that are named (``features``, ``reward``, ``calibrator``, ``around`` if it is a rule) may be given as
            objects; a policy as ``around`` is ``"pretrained"`` or the path of a saved one.

    Returns:
        The students, their accuracies, and what happened on the way.

    Raises:
        UsageError: if an argument is invalid; nothing has been written then except, perhaps, a cached teacher. Also if
            the run diverges before the end of its first epoch.
        KeyboardInterrupt: after an interrupt; with a folder, everything has been saved, and ``resume=True`` goes on.

    Example:
        >>> from experiments import distill
        >>> result = distill("auto", "auto", "digits", temperature="lskd", epochs=2, progress=False)
        >>> sorted(result.history)[:3]
        ['epoch', 'reward', 'seconds']

    Note:
        There are three ways further down, each with more in your own hands:

        * the environment, for an agent of your own: ``gymnasium.make_vec("rlkd/Digits-v0", num_envs=64)``, or
          ``gymnasium.make("rlkd/Classification-v0", dataset=..., teacher=..., student=...)``;
        * the run, update by update: ``run = build_run(RunConfig())``, ``run.reset(seed)``, ``run.advance(policy,
          steps)`` or ``run.step(temperature)``, with :func:`~rlkd_env.runs.build.build_run`;
        * the loss alone, in your own loop: a method of :mod:`rlkd_env.methods` gives a loss per instance, and
          ``load_policy("pretrained")`` of :mod:`agents.learned.loading` gives the temperatures.
    """
    words = (teacher, student, data, temperature, method, settings)
    with _keywords_for_options(), _global_generators_kept(), believing(_named(words, settings)):
        objects, named = read_objects(teacher, student, data, temperature, test, validation)
        given = {"seed": seed, "progress": progress, "method": method, "epochs": epochs, **named}
        if folder is not None:
            given["out"] = str(folder)
        config = _config({name: value for name, value in given.items() if value is not None}, settings)
        if folder is not None:
            check_folder(config.folder, config.output.overwrite, config.output.resume)
            if config.output.resume and (config.folder / SUMMARY_FILE).is_file():
                raise UsageError(f"the run in {folder} is finished already")
        with using_threads(torch.get_num_threads()):
            session = prepare(config, objects, writes=folder is not None, chooses_threads=True)
            return _result(session, complete(session))


def _named(words: tuple[Any, ...], settings: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the code that a call names, which alone a config file may name too; None, which is all, without a file."""
    if settings.get("config") is None:
        return None
    trusted = settings.get("trust", ())
    return module_paths(words) | trusted_paths([trusted] if isinstance(trusted, str) else trusted)


def _config(given: dict[str, Any], settings: dict[str, Any]) -> DistillConfig:
    """Return the config of a preset, a config file and, over them, what was given."""
    for name in settings:
        if name in _SET_OTHERWISE:
            raise UsageError(f"{name} is no setting here: use the argument {_SET_OTHERWISE[name]}")
        if name in given:
            raise UsageError(f"{name} follows from the other arguments already: leave it out")
    given = {**given, **settings}
    below = read_layers(
        given.get("preset"),
        given.get("config"),
        DistillConfig.presets,
        DistillConfig.option_names(),
        given.get("dataset"),
    )
    choice: dict[str, Any] = {name: given[name] for name in ("agent", "policy", "rule") if name in given}
    return DistillConfig().replaced(laid_over(below, choice)).replaced(given)


def _result(session: DistillSession, summary: dict[str, Any]) -> DistillationResult:
    kept, last_student = session.kept, session.records.selection.last_student
    if kept is None or last_student is None:
        raise UsageError(
            f"the run diverged at update {session.records.steps}, before there was a good student: "
            "try a lower learning_rate"
        )
    if session.records.diverged:
        warnings.warn(
            f"the run diverged at update {session.records.steps}, and the result has the last good students: "
            "try a lower learning_rate",
            stacklevel=3,
        )
    return DistillationResult(
        kept.network.cpu().eval(),
        session.network(last_student).cpu().eval(),
        {name: student.cpu().eval() for name, student in session.students().items()},
        summary["student_val_accuracy"],
        summary["student_test_accuracy"],
        summary["teacher_test_accuracy"],
        session.records.history.columns(),
        session.phases.learned_policy(),
        session.folder,
        summary,
    )


@contextmanager
def _keywords_for_options() -> Iterator[None]:
    """Let errors speak of keywords in place of the command line's options, but in whole commands."""
    try:
        yield
    except UsageError as error:
        raise UsageError(_OPTION.sub(lambda found: found[1] or _keyword(found[2]), str(error))) from error


def _keyword(option: str) -> str:
    name = option.replace("-", "_")
    if name.startswith("no_"):
        return f"{name.removeprefix('no_')}=False"
    return _SET_OTHERWISE.get(name, name)


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    """Leave the global random generators, which agents seed anew, as they were."""
    state = random_state()
    try:
        yield
    finally:
        load_random_state(state)
