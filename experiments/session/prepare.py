"""From options to a session: everything is built and checked before anything is trained."""

from __future__ import annotations

from functools import partial

from experiments.config import DistillConfig
from experiments.config.choice import AgentChoice
from experiments.session.objects import NO_OBJECTS, GivenObjects
from experiments.session.population.session import PopulationSession, check_source
from experiments.session.session import DistillSession
from experiments.session.telling.tracking import check_tracker
from experiments.threads import choose_threads
from rlkd_env.data import create_source
from rlkd_env.runs.build import build_run
from rlkd_env.runs.distributed.processes import Processes
from rlkd_env.runs.teacher import check_teacher
from rlkd_env.training.progress import TeacherBar
from rlkd_env.utils.memo import Memo, NoMemo
from rlkd_env.utils.notices import tell

_COSTLY = 4
"""Batches whose forward takes longer than an update, which is two forwards and a backward."""


def prepare(
    config: DistillConfig,
    objects: GivenObjects = NO_OBJECTS,
    processes: Processes | None = None,
    writes: bool = True,
    memo: Memo | None = None,
    chooses_threads: bool = False,
) -> DistillSession:
    """Build a run and what drives it; nothing is written except, perhaps, a cached teacher.

    Where it ``chooses_threads``, PyTorch uses one thread from then on if the networks are small.

    A memo, for runs without objects, keeps data and teacher for the next run that has the same ones.
    """
    if isinstance(choice := objects.temperature or config.agent.choice, AgentChoice):
        choice.check()
    memo = memo or NoMemo()
    is_shown = config.output.progress and (processes is None or processes.is_first)
    bar = TeacherBar(is_shown)
    create = partial(objects.data or create_source, config.run.data)
    source = memo.keep(("source", str(config.run.data)), create)
    if config.population.size:
        check_source(source)
    choose = choose_threads if chooses_threads and processes is None else None
    run = build_run(config.run, source, objects.teacher, objects.student, bar, processes, memo, choose)
    bar.close()
    kind = PopulationSession if config.population.size else DistillSession
    session = kind(config, run, source, config.folder if writes else None, objects, memo)
    if (name := config.output.track) is not None and writes:
        check_tracker(name)
        session.track = name
    session.teacher_accuracy = check_teacher(run, config.output.force or config.output.resume)
    if session.phases.learns and run.measures_probe and len(run.probe) >= _COSTLY * run.batch_size:
        tell(
            f"the reward forwards all {len(run.probe)} probe images after every update of {run.batch_size} images, "
            "which takes most of the time: --reward probe_turns forwards about two batches, --reward-interval 16 does "
            "it seldom"
        )
    return session
