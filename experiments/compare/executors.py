"""The executors of a comparison's runs: worker processes, this process, or a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from experiments.compare.together import Unit, make_unit
from experiments.compare.work import CountEpochs, Outcome, new_memo
from experiments.config.compare import CompareOptions
from rlkd_env.errors import missing_package
from rlkd_env.runs.parallel.workers import available_cores
from rlkd_env.runs.teacher import leave_telling
from rlkd_env.utils.processes import begin_worker, starting_children
from rlkd_env.utils.trust import believed, believing

Executor = Callable[[Sequence[Unit], CompareOptions, CountEpochs], Generator[Outcome, None, None]]
"""Executes units of runs, yields the outcome of each run as soon as its unit is over, and counts epochs meanwhile.

Closing the generator stops the runs under way."""


class WorkersLost(Exception):  # noqa: N818 (not an error in the program)
    """Worker processes end before they have begun with anything."""


def in_processes(units: Sequence[Unit], options: CompareOptions, count: CountEpochs) -> Generator[Outcome, None, None]:
    """Execute runs in worker processes, which are kept for all runs because their imports take seconds.

    Where a worker dies, for instance because memory runs out, the others end with it. Of the runs under way each is
    made alone at the end, which tells the one that does not get through; all others go on at once.
    """
    jobs, suspects, left = min(options.jobs or available_cores(), len(units)), list[Unit](), list(units)
    while left:
        begun, left = yield from _in_pool(left, jobs, options.threads, count)
        suspects += [(run,) for unit in begun for run in unit]
    for unit in suspects:
        begun, _ = yield from _in_pool([unit], 1, options.threads, count)
        if begun:
            yield Outcome(unit[0], None, "its process was killed, perhaps for its memory")


def _in_pool(
    units: Sequence[Unit], jobs: int, threads: int, count: CountEpochs
) -> Generator[Outcome, None, tuple[list[Unit], list[Unit]]]:
    """Execute runs in a pool of processes; where one dies, return the units that were under way and those that wait.

    Raises:
        WorkersLost: if a process dies before any unit is under way.
    """
    context = multiprocessing.get_context("spawn")  # a fork does not work with threads and GPUs
    epochs = context.Value("q", 0)
    of_workers, lifeline = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(min(jobs, len(units)), context, begin_worker, (of_workers, _PREPARE, epochs))
    waiting, begun, seen = dict[Future[list[Outcome]], Unit](), set[str](), 0
    try:
        with starting_children():
            waiting |= {pool.submit(_work, unit, threads, believed()): unit for unit in units}
        while waiting:
            done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            count(epochs.value - seen)
            seen = epochs.value
            for future in done:
                outcomes = future.result()
                del waiting[future]
                yield from outcomes
            begun = {unit[0].name for future, unit in waiting.items() if future.running()}
        pool.shutdown()
    except BrokenProcessPool as error:
        if not begun:
            raise WorkersLost from error
    finally:
        lifeline.close()  # ends the workers at once
        pool.shutdown(cancel_futures=True)
    left = list(waiting.values())
    return [unit for unit in left if unit[0].name in begun], [unit for unit in left if unit[0].name not in begun]


def one_by_one(units: Sequence[Unit], options: CompareOptions, count: CountEpochs) -> Generator[Outcome, None, None]:
    """Execute one unit after the other in this process."""
    memo = new_memo()
    for unit in units:
        yield from make_unit(unit, options.threads, count, memo)


def on_ray(units: Sequence[Unit], options: CompareOptions, count: CountEpochs) -> Generator[Outcome, None, None]:
    """Execute runs on the Ray cluster that ``RAY_ADDRESS`` names, or on a local one.

    The cluster's machines must share the folder of the comparison, the working directory and the data.
    """
    try:
        import ray
    except ImportError:
        raise missing_package("--executor ray", "ray") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False, configure_logging=False)
    task = ray.remote(num_cpus=options.threads)(_work_on_ray)
    try:
        waiting = {task.remote(unit, options.threads, os.getcwd(), believed()): unit for unit in units}
        while waiting:
            (done,), _ = ray.wait(list(waiting))
            unit = waiting.pop(done)
            try:
                outcomes = ray.get(done)
            except ray.exceptions.RayError as error:
                told = f"{type(error).__name__}: {' '.join(str(error).split())}"
                outcomes = [Outcome(run, None, told) for run in unit]
            count(sum(run.config.run.recipe.epochs for run in unit))
            yield from outcomes
    finally:
        ray.shutdown()


EXECUTORS: dict[str, Executor] = {"processes": in_processes, "serial": one_by_one, "ray": on_ray}

_PREPARE = f"{__name__}:prepare_worker"
_epochs: Any = None
_memo = new_memo()


def prepare_worker(epochs: Any) -> None:
    """Prepare a worker process. It ends with its parent, however that ends, so that no run is written twice."""
    global _epochs
    _epochs = epochs
    leave_telling()  # whoever has checked the arms has told
    warnings.simplefilter("ignore", FutureWarning)
    tqdm.set_lock(threading.RLock())  # the default is a system semaphore, which a killed process would leave behind


def _work(unit: Unit, threads: int, trusted: frozenset[str] | None) -> list[Outcome]:
    with believing(trusted):
        return make_unit(unit, threads, _count, _memo)


def _count(epochs: int) -> None:
    with _epochs.get_lock():
        _epochs.value += epochs


def _work_on_ray(unit: Unit, threads: int, folder: str, trusted: frozenset[str] | None) -> list[Outcome]:
    os.chdir(folder)  # for relative paths in the options
    with believing(trusted):
        return make_unit(unit, threads, lambda _: None, _memo)  # the caller, which is on another machine, counts
