"""What is kept for a key, and for how long."""

from __future__ import annotations

from rlkd_env.utils.memo import Memo, NoMemo


def test_the_least_recently_used_value_goes_first() -> None:
    memo, made = Memo(size=2), list[str]()

    def get(key: str) -> None:
        memo.keep(key, lambda: made.append(key))

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert made == ["a", "b", "c", "b"]


def test_where_nothing_is_kept_all_is_made_anew() -> None:
    memo, made = NoMemo(), list[int]()
    for number in range(2):
        memo.keep("a", lambda number=number: made.append(number))  # type: ignore[misc]
    assert made == [0, 1]
