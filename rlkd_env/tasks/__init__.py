"""What is distilled: how teacher and student are forwarded, and how a student is evaluated."""

from rlkd_env.tasks.base import Evaluation, Task
from rlkd_env.tasks.classification import Classification

__all__ = ["Classification", "Evaluation", "Task"]
