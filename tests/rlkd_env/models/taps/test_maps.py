"""Maps in every form are the same map."""

from __future__ import annotations

import pytest
import torch

from rlkd_env.models.taps.maps import as_map, like_output, token_grid


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize("size", [(64, 64), (64, 128), (96, 64)])
def test_tokens_are_a_grid_behind_those_of_no_place(prefix: int, size: tuple[int, int]) -> None:
    height, width = size[0] // 8, size[1] // 8
    expected = torch.arange(2.0 * 3 * height * width).view(2, 3, height, width)
    tokens = torch.cat([torch.full((2, prefix, 3), -1.0), expected.flatten(2).transpose(1, 2)], dim=1)
    assert token_grid(tokens.shape[1], size) == (height, width)
    found = as_map(tokens, size)
    assert torch.equal(found, expected)
    assert torch.equal(like_output(found, tokens, size), tokens)
    assert (like_output(found + 1, tokens, size)[:, :prefix] == -1).all()


def test_channels_last_are_turned_and_channels_first_stay() -> None:
    maps = torch.rand(2, 12, 4, 4)
    assert as_map(maps, (32, 32)) is maps
    last = maps.permute(0, 2, 3, 1)
    assert torch.equal(as_map(last, (32, 32)), maps)
    assert torch.equal(like_output(2 * maps, last, (32, 32)), 2 * last)
