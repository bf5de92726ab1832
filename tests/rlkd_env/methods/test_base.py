"""Methods by their name."""

from __future__ import annotations

import pytest

from rlkd_env.errors import UsageError
from rlkd_env.methods import create_method


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kdd", {}, "Did you mean 'kd'.*Valid: .*cross_entropy, deit, dist, dkd, fgd, fitnet, fpn, icd, kd"),
        ("kd", {"weight": 1}, "kd_weight, task_weight"),
    ],
)
def test_unknown_methods_and_options_are_refused_with_the_valid_names(name: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_method(name, **options)
