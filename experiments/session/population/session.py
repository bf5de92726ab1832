"""A population from start to end: several students in lock-step, one of which, or all together, is the result."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from torch import nn

from agents.recording.selection import StudentSelection
from agents.rules.by_run import PolicyByRun
from experiments.config.choice import AgentChoice, RuleChoice
from experiments.session.folder import MEMBERS_FOLDER, POPULATION_FILE, STUDENT_FILE
from experiments.session.phases.base import Phases, PolicyPhases
from experiments.session.population.keeping import Ensemble, average_weights
from experiments.session.population.records import PopulationRecords
from experiments.session.records import Records
from experiments.session.session import DistillSession, KeptStudent
from rlkd_env.data import DataSource, ImageSet
from rlkd_env.errors import UsageError
from rlkd_env.runs.parallel import ParallelRuns, create_parallel_runs, fastest_mode, seconds_alone, seconds_per_step
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.choices import RunMode
from rlkd_env.utils.files import read_json, tensors_hash, write_json
from rlkd_env.utils.notices import tell
from rlkd_env.utils.randomness import seeded


class PopulationSession(DistillSession):
    """K students that start alike, see the same batches and differ in their temperatures alone.

    ``run`` is the template of the runs, which are ``trained`` in lock-step. Every member of a rule is the run that is
    made with its rule alone. ``members`` holds these rules by the members' names, or None for those of an agent.
    """

    records: PopulationRecords
    trained: ParallelRuns

    def _parts(self) -> tuple[DistillationRun | ParallelRuns, Records, Phases]:
        run, choice, count = self.run, self.choice, self.config.population.size
        _check_method(run)
        self.members = self._create_members()
        mode, seed = self._mode(), self.config.output.seed
        if isinstance(choice, AgentChoice):
            # They need stable-baselines3, which takes long to import.
            from experiments.session.phases.learning import AgentPhases
            from rlkd_env.envs.vector_env import KDVectorEnv

            slots = KDVectorEnv(run=run, num_runs=count, run_mode=mode)
            records = PopulationRecords(slots.runs, self.folder, self.members, self.config.output.patience)
            return slots.runs, records, AgentPhases(self.config, choice, slots, records)
        rules = [rule.create(run, seed) for rule in self.members.values() if rule is not None]
        runs, policy = create_parallel_runs(run, count, mode), PolicyByRun(rules)
        runs.check_policy(policy)
        records = PopulationRecords(runs, self.folder, self.members, self.config.output.patience)
        return runs, records, PolicyPhases(runs, records, lambda: policy)

    def _create_members(self) -> dict[str, RuleChoice | None]:
        choice, options = self.choice, self.config.population
        if not isinstance(choice, RuleChoice):
            return {f"student-{number}": None for number in range(1, options.size + 1)}
        if options.members:
            return {**choice.members(options.members)}
        bounds = self.run.temperature_range
        return {**choice.swept().members(choice.sweep(options.size, bounds.minimum, bounds.maximum))}

    def _mode(self) -> RunMode:
        """Return how the runs are computed; a resumed population goes on as it was, so that it stays the same."""
        options = self.config.population
        if options.run_mode != "auto":
            return options.run_mode
        path = None if self.folder is None else self.folder / POPULATION_FILE
        if self.config.output.resume and path is not None and path.is_file():
            stored = read_json(path, dict[str, Any]).get("mode")
            if stored not in get_args(RunMode):
                raise UsageError(f"{path} is damaged: it has no mode of {', '.join(get_args(RunMode))}")
            mode: RunMode = stored
            return mode
        tell(f"measuring how {options.size} students are computed the fastest (--run-mode says it without)")
        return fastest_mode(self.run, options.size, one_seed=True)

    def cost(self) -> str:
        """Measure a few updates, after which the runs must be started or restored, and say what all of them cost."""
        together = seconds_per_step(self.trained, one_seed=True)
        alone = seconds_alone(self.run)
        count, steps = self.trained.num_runs, self.trained.total_steps
        seconds = together * steps
        total = f"{seconds:.1f} s" if seconds < 100.0 else f"{seconds / 60.0:.0f} min"
        return (
            f"a population of {count}, {self.trained.mode}: an update of all takes about {1e3 * together:.2f} ms, "
            f"{together / alone:.1f} times that of one student; {steps} updates of each, {count * steps} in all, take "
            f"about {total}"
        )

    def execute(self) -> None:
        """Make all runs, or what is left of them, and write the students and what is kept."""
        try:
            super().execute()
        finally:
            self.trained.close()
        if self.folder is not None:
            self._save_kept(self.folder)

    def start(self) -> None:
        """Clear the folder, write the settings and who the members are, and start the runs."""
        super().start()
        if self.folder is not None:
            members = {name: _options_of(rule) for name, rule in self.members.items()}
            write_json(self.folder / POPULATION_FILE, {"mode": self.trained.mode, "members": members})

    def _reset(self) -> None:
        self.trained.reset([self.config.output.seed] * self.trained.num_runs)

    def save_students(self, folder: Path) -> None:
        """Write the students of all members, of which the best is the run's own for the present."""
        super().save_students(folder)
        for name, record in self.records.members.items():
            student = record.selection.of(self.config.kept_epoch)
            if student is not None:
                self.save_student(folder / MEMBERS_FOLDER / f"{name}.safetensors", student.weights)

    @property
    def kept(self) -> KeptStudent | None:
        """What the options ask for: the best student, all students' average or their ensemble; None if none is good."""
        return self.candidates.get(self.config.population.keep)

    @cached_property
    def candidates(self) -> dict[str, KeptStudent]:
        """What may be kept, by the names of the option ``keep``; nothing if there is no good student.

        Average and ensemble are made of the students of the members that have not diverged, or of all if every one
        has.
        """
        records, best = self.records, super().kept
        if best is None:
            return {}
        over = dict(zip(records.members, records.diverged_members, strict=True))
        students = [student for name, student in self.students().items() if not over[name] or records.diverged]
        made = {
            "average-weights": average_weights(students, self.run, self.config.output.seed),
            "ensemble": Ensemble(students),
        }
        validation = self.run.splits.validation
        measured = {
            name: KeptStudent(network, float(self.run.task.evaluate(network, validation).accuracy), None)
            for name, network in made.items()
        }
        return {"best": best, **measured}

    def students(self) -> dict[str, nn.Module]:
        """Return the students of the members by their names, but for those that never had a good one.

        They are those of the epochs that the options ask for, as the run's own is.
        """
        epoch = self.config.kept_epoch
        found = {name: record.selection.of(epoch) for name, record in self.records.members.items()}
        return {name: self.network(student.weights) for name, student in found.items() if student is not None}

    def figures(self, test: ImageSet | None) -> dict[str, Any]:
        """Return every member's figures and those of what may be kept, with the accuracies on the test images."""
        records = self.records
        candidates = {
            name: {"val_accuracy": one.accuracy, "test_accuracy": self._test_accuracy(one.network, test)}
            for name, one in self.candidates.items()
        }
        members = [
            {
                "name": name,
                **_options_of(rule),
                **self._member_figures(records.members[name].selection, test),
                "mean_temperature": records.members[name].mean_temperature,
                "diverged": diverged,
            }
            for (name, rule), diverged in zip(self.members.items(), records.diverged_members, strict=True)
        ]
        told = {"keep": self.config.population.keep, "mode": self.trained.mode, "best": records.best}
        return {"population": {**told, "candidates": candidates, "members": members}}

    def _member_figures(self, selection: StudentSelection, test: ImageSet | None) -> dict[str, Any]:
        best, last = (
            None if weights is None else self._test_accuracy(self.network(weights), test)
            for weights in (selection.best_student, selection.last_student)
        )
        return {
            "val_accuracy": selection.best_accuracy,
            "test_accuracy": best,
            "epoch": selection.best_epoch,
            "last_val_accuracy": selection.last_accuracy,
            "last_test_accuracy": last,
            "sha256": None if selection.best_student is None else tensors_hash(selection.best_student),
        }

    def _test_accuracy(self, network: nn.Module, test: ImageSet | None) -> float | None:
        return None if test is None else float(self.run.task.evaluate(network, test).accuracy)

    def _save_kept(self, folder: Path) -> None:
        """Put what is kept in the place of the best student; an ensemble is saved as its members."""
        kept, keep = self.kept, self.config.population.keep
        if kept is None or keep == "best":
            return
        if keep == "ensemble":
            (folder / STUDENT_FILE).unlink()
        else:
            self.save_student(folder / STUDENT_FILE, kept.network.state_dict())


def _options_of(rule: RuleChoice | None) -> dict[str, Any]:
    """Return the options that make a member alone; nothing for one of an agent's."""
    return {} if rule is None else rule.as_options()


def check_source(source: DataSource) -> None:
    """Check that there can be a population on these data: its students' probabilities are those of images."""
    if source.task == "detection":
        raise UsageError("a population is of classifiers: leave --population away for detectors")


def _check_method(run: DistillationRun) -> None:
    """Check that members can differ by their temperatures."""
    with seeded(0, run.device):
        method = run.create_method(run.create_student().to(run.device))
    if not method.uses_temperature:
        raise UsageError("without temperatures in the loss the members of a population would all be the same student")
