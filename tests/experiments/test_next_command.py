"""The command that comes next is complete, and understood."""

from __future__ import annotations

import pytest

from experiments.cli import parse
from experiments.next_command import distill_words
from rlkd_env.runs.config import RunConfig


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ""),
        (["--epochs", "7", "--device", "cpu", "--workers", "0"], "--epochs 7 --device cpu"),
        (["--method", "dkd", "--method-options", "beta", "8"], "--method dkd --method-options beta 8"),
        (["--dataset", "coco", "--data-path", "p", "--no-capture"], "--dataset coco --data-path p --no-capture"),
        (["--preset", "digits_detection", "--epochs", "2"], "--preset digits_detection --epochs 2"),
        (["--rule", "fixed", "--seed", "3", "--population", "4"], "--rule fixed --population 4 --seed 3"),
        (["--preset", "digits_detection", "--rule", "fixed"], "--preset digits_detection --rule fixed"),
    ],
)
def test_only_what_differs_is_said_and_means_the_same(options: list[str], words: str) -> None:
    config = parse(["distill", *options])
    found = distill_words(config.as_keywords(), config.output.preset)
    assert " ".join(found) == f"rlkd distill {words}".strip()
    assert parse(found[1:]).settings() == config.settings()


def test_what_is_added_comes_last_and_in_place_of_what_was_chosen() -> None:
    chosen = RunConfig().replaced(reward="probe_loss", epochs=3).as_keywords()
    found = distill_words(chosen, agent="ppo", reward="probe_turns")
    assert found == ["rlkd", "distill", "--epochs", "3", "--agent", "ppo", "--reward", "probe_turns"]
