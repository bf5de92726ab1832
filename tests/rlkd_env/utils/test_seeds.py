"""Seeds that follow from several numbers."""

from __future__ import annotations

from itertools import product

import torch

from rlkd_env.utils.seeds import mixed_seed, seeded_generator


def test_every_pair_of_numbers_has_a_seed_of_its_own() -> None:
    tuples = [*product(range(20), repeat=2), (2**40, 3), (3, 2**40)]
    assert len({mixed_seed(*numbers) for numbers in tuples}) == len(tuples)
    assert all(0 <= mixed_seed(*numbers) < 2**63 for numbers in tuples)


def test_the_order_of_the_numbers_matters() -> None:
    draws = [torch.rand(5, generator=seeded_generator(*numbers)) for numbers in ((4, 5), (4, 5), (5, 4))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
