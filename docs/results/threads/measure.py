"""What an update takes with one thread and with two, by the operations of its forward passes.

``threads.csv`` gets a line for every student and number of threads: the least and the greatest of three medians, taken
in turns.

    OMP_NUM_THREADS=2 python docs/results/threads/measure.py
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from experiments.config import DistillConfig
from experiments.session.prepare import prepare
from experiments.threads import operations, using_threads
from rlkd_env.runs.parallel import seconds_alone

STUDENTS: dict[str, dict[str, Any]] = {
    "mlp12": {},
    "mlp64": {"student": "mlp64"},
    "cnn8": {"student": "cnn8"},
    "cnn16": {"student": "cnn16"},
    "mlp64, batches of 256": {"student": "mlp64", "batch_size": 256},
}
"""Options of ``rlkd distill`` on Digits by the students' names."""
ROUNDS = 3


def main() -> None:
    """Measure all students."""
    with (Path(__file__).parent / "threads.csv").open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["student", "operations", "threads", "least_ms", "greatest_ms"])
        for name, options in STUDENTS.items():
            run = prepare(DistillConfig().replaced({**options, "device": "cpu"}), writes=False).run
            image = next(run.splits.train.chunks(1))
            count = operations([run.create_student().eval(), run.teacher.eval()], image) * run.batch_size
            found: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(ROUNDS):
                for threads, times in found.items():
                    with using_threads(threads):
                        times.append(1e3 * seconds_alone(run))
            for threads, times in found.items():
                lines.writerow([name, count, threads, f"{min(times):.2f}", f"{max(times):.2f}"])
            file.flush()


if __name__ == "__main__":
    main()
