"""What is said of a run before it begins."""

from __future__ import annotations

import pytest

from experiments.config import DistillConfig
from experiments.session.prepare import prepare


@pytest.mark.parametrize(
    ("options", "is_costly"),
    [
        ({"agent": "ppo"}, False),
        ({"agent": "ppo", "reward": "probe_loss"}, True),
        ({"agent": "ppo", "reward": "probe_loss", "reward_interval": 16}, False),
        ({"agent": "ppo", "reward": "probe_loss", "batch_size": 64}, False),
        ({"rule": "anneal", "reward": "probe_loss"}, False),
    ],
    ids=str,
)
def test_a_reward_that_takes_most_of_the_time_is_told_of(
    options: dict[str, str | int], is_costly: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    config = DistillConfig.from_keywords(**{"batch_size": 32, "device": "cpu", **options})
    prepare(config, writes=False)
    told = capsys.readouterr().err
    assert ("the reward forwards all 150 probe images after every update of 32 images" in told) == is_costly
