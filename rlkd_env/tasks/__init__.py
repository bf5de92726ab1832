"""What is distilled: how networks are forwarded, trained and evaluated."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.tasks.base import Evaluation as Evaluation, Task as Task
    from rlkd_env.tasks.classification import Classification as Classification
    from rlkd_env.tasks.create import create_task as create_task
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
