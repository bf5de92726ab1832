"""Seeds that follow from several numbers."""

from __future__ import annotations

import copy
import pickle
from itertools import product

import torch

from rlkd_env.utils.seeds import DeviceGenerator, mixed_seed, seeded_generator


def test_every_pair_of_numbers_has_a_seed_of_its_own() -> None:
    tuples = [*product(range(20), repeat=2), (2**40, 3), (3, 2**40)]
    assert len({mixed_seed(*numbers) for numbers in tuples}) == len(tuples)
    assert all(0 <= mixed_seed(*numbers) < 2**63 for numbers in tuples)


def test_the_order_of_the_numbers_matters() -> None:
    draws = [torch.rand(5, generator=seeded_generator(*numbers)) for numbers in ((4, 5), (4, 5), (5, 4))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_generator_is_made_once_and_draws_what_a_fresh_one_would() -> None:
    generator, device = DeviceGenerator(), torch.device("cpu")
    first = generator.seeded(device, 4, 5)
    drawn = torch.rand(5, generator=first)
    assert torch.equal(drawn, torch.rand(5, generator=seeded_generator(4, 5)))
    assert generator.seeded(device, 5, 4) is first
    copied = pickle.loads(pickle.dumps(copy.deepcopy(generator)))
    assert torch.equal(drawn, torch.rand(5, generator=copied.seeded(device, 4, 5)))
