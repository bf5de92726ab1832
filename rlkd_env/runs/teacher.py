"""How good a run's teacher is, and whether it knows enough to teach."""

from __future__ import annotations

from rlkd_env.data import ImageSet
from rlkd_env.errors import UsageError
from rlkd_env.runs.run import DistillationRun
from rlkd_env.training.teacher_cache import StoredTeacher
from rlkd_env.utils.files import tensors_hash
from rlkd_env.utils.notices import tell

_LEAST_PRECISION = 0.01
"""Average precision of a detector that has learned something."""

_known: dict[tuple[str, str], float] = {}
_told: set[str] = set()
_tells = True


def leave_telling() -> None:
    """Tell no teacher's accuracy in this process, because the one that has started it does."""
    global _tells
    _tells = False


def teacher_accuracy(run: DistillationRun, images: ImageSet) -> float | None:
    """Return a teacher's accuracy, or AP, on images of the run's data; None if its logits on them are not known.

    It is measured once in a process that makes many runs with the teacher, as that may take longer than a run.
    """
    if isinstance(run.teacher, StoredTeacher):
        logits = images.teacher_logits
        return None if logits is None else float((logits.argmax(dim=-1) == images.labels).float().mean())
    key = (tensors_hash(run.teacher.state_dict()), images.fingerprint())
    if key not in _known:
        _known[key] = float(run.task.evaluate(run.teacher, images).accuracy)
    return _known[key]


def check_teacher(run: DistillationRun, force: bool) -> float | None:
    """Measure a teacher on the validation images, tell the result, once in a process, and return it.

    Raises:
        UsageError: If it is hardly better than chance, unless ``force`` is set.
    """
    accuracy = teacher_accuracy(run, run.splits.validation)
    if accuracy is None:
        return None
    metric, size = run.task.metric, len(run.splits.validation)
    told = f"the teacher has {accuracy:.1%} {metric} on the {size} validation images"
    chance = 1.0 / run.splits.num_classes
    least = chance + 2.0 * (chance * (1.0 - chance) / size) ** 0.5 if run.task.follows_logits else _LEAST_PRECISION
    if accuracy >= min(least, 1.0) or force:
        if _tells and told not in _told:
            tell(told)
        _told.add(told)
        return accuracy
    hardly = f"hardly more than chance ({chance:.1%})" if run.task.follows_logits else "next to nothing"
    raise UsageError(
        f"{told}, {hardly}: its classes may be in another order, its images normalised otherwise "
        "(--teacher-normalization), or its weights those of no training; --force goes on"
    )
