"""Which images an exploring epoch draws, and their mix."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import rlkd_env  # noqa: F401
from rlkd_env.data import BatchStream, DataSource, ImageSet, MemoryImages, Splits
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.hooks import StepResult
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.exploration import Explorer
from rlkd_env.sampling.settings import Exploration
from rlkd_env.wrappers.exploration import explore

MakeRun = Callable[..., DistillationRun]

CPU = torch.device("cpu")

EVERY_SECOND_EPOCH = Exploration(first_epoch=2, interval=2)


def random_temperatures(run: DistillationRun, seed: int) -> Temperature:
    generator = torch.Generator().manual_seed(seed)
    return Temperature.shared(1.0 + 9.0 * torch.rand(run.batch_size, generator=generator))


def step_to(run: DistillationRun, step: int) -> None:
    while run.step_count < step:
        run.step(random_temperatures(run, run.step_count))


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(torch.as_tensor(left[name]), torch.as_tensor(right[name])), name


def numbered(size: int) -> ImageSet:
    """Image i has the one pixel i and the label i."""
    return MemoryImages(torch.arange(size, dtype=torch.float32).view(size, 1, 1, 1), torch.arange(size))


def seen(indices: Tensor, logits: Tensor, **mix: Tensor) -> InstanceOutputs:
    return InstanceOutputs(logits, torch.zeros_like(logits), torch.zeros_like(indices), indices=indices, **mix)


def explorer_that_ranks_by_index(size: int, known: int, **settings: object) -> Explorer:
    """Image 0 is the most uncertain one; of ``size`` images the first ``known`` have a history."""
    explorer = Explorer(Exploration(**{"first_epoch": 2, "interval": 1, **settings}), size, CPU)
    logits = torch.stack([0.1 * torch.arange(known), torch.zeros(known)], dim=1)
    order = torch.randperm(known, generator=torch.Generator().manual_seed(0))
    explorer.observe(seen(order, logits[order]))
    return explorer


def step_in_epoch(stream: BatchStream, epoch: int) -> int:
    return (epoch - 1) * stream.batches_per_epoch


def test_the_score_is_the_mean_entropy_of_the_predictions_on_the_image_itself(make_run: MakeRun) -> None:
    run = make_run(epochs=5)
    explorer = explore(run, EVERY_SECOND_EPOCH)
    history: dict[int, list[float]] = {index: [] for index in range(300)}

    def remember() -> None:
        shares = torch.ones(64) if run.outputs.label_share is None else run.outputs.label_share
        for index, share, logits in zip(run.outputs.indices, shares, run.outputs.student_logits, strict=True):
            if share == 1.0:
                p = logits.detach().softmax(0)
                history[int(index)].append(float(-(p * p.log()).sum()))

    run.reset(0)
    remember()
    while run.step_count < 18:
        run.step(random_temperatures(run, run.step_count))
        remember()
    expected = torch.tensor([sum(values) / len(values) if values else math.nan for values in history.values()])
    torch.testing.assert_close(explorer.scores, expected, equal_nan=True)
    assert max(map(len, history.values())) > 3


def test_repeated_images_count_each_time_and_mixed_or_broken_predictions_do_not() -> None:
    explorer = Explorer(EVERY_SECOND_EPOCH, 5, CPU)
    even, sure = torch.zeros(2), torch.tensor([math.log(3.0), 0.0])
    explorer.observe(seen(torch.tensor([1, 1, 2]), torch.stack([even, sure, even])))
    explorer.observe(seen(torch.tensor([1, 3]), torch.tensor([[math.nan, 0.0], [math.inf, 0.0]])))
    mix = {"partner_labels": torch.zeros(2, dtype=torch.int64), "label_share": torch.tensor([0.7, 1.0])}
    explorer.observe(seen(torch.tensor([2, 4]), torch.stack([sure, even]), **mix))
    sure_entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    expected = [math.nan, (math.log(2) + sure_entropy) / 2, math.log(2), math.nan, math.log(2)]
    torch.testing.assert_close(explorer.scores, torch.tensor(expected), equal_nan=True)
    with pytest.raises(ValueError, match="indices"):
        explorer.observe(InstanceOutputs(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)))


class EasyAndHard(DataSource):
    """Images 0 to 119 are their class' prototype with a little noise; 120 to 239 noise of that size, random classes."""

    default_teacher = default_student = "mlp16"

    def splits(self) -> Splits:
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(4, (240,), generator=generator)
        images = 0.5 * torch.randn(240, 1, 4, 4, generator=generator)
        prototypes = 2.0 * torch.eye(16)[:4].view(4, 1, 4, 4)
        images[:120] = prototypes[labels[:120]] + 0.2 * images[:120]
        data = MemoryImages(images, labels)
        return Splits(data, data, data, data, num_classes=4)

    def test_set(self) -> ImageSet:
        return self.splits().validation


def test_the_uncertain_ranks_hold_the_hard_half_and_the_confident_ones_the_easy_half() -> None:
    def linear() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 4))

    config = RunConfig.from_keywords(epochs=12, batch_size=40, method="cross_entropy", device="cpu")
    run = build_run(config, EasyAndHard(), teacher=linear(), student=linear)
    explorer = explore(run, Exploration(first_epoch=11, interval=1))
    run.reset(0)
    step_to(run, 10 * run.steps_per_epoch)
    uncertain, confident, _ = explorer.pairs
    assert len(uncertain) == len(confident) == 24
    assert (uncertain >= 120).float().mean() > 0.9
    assert (confident < 120).float().mean() > 0.9


@pytest.mark.parametrize("batches", ["pairs", "all"])
def test_pixels_and_labels_are_mixed_as_worked_by_hand(batches: str) -> None:
    # 10 images: ranks 10-30 % are images 1 and 2, ranks 70-90 % are 7 and 8; shares 1.0 and 0.7.
    ranks = {"uncertain_ranks": (0.1, 0.3), "confident_ranks": (0.7, 0.9)}
    explorer = explorer_that_ranks_by_index(10, 10, batches=batches, **ranks)
    stream = BatchStream(numbered(10), 10, seed=0)
    batch = explorer.batch(stream, step_in_epoch(stream, 2))
    assert [part.tolist() for part in explorer.pairs] == [[1, 2], [7, 8], [1.0, pytest.approx(0.7)]]
    rows = zip(
        batch.images.flatten(), batch.indices, batch.labels, batch.partner_labels, batch.label_share, strict=True
    )
    found = sorted(tuple(round(float(value), 4) for value in row) for row in rows)
    one, two = (1.0, 1, 1, 7, 1.0), (0.7 * 2 + 0.3 * 8, 2, 2, 8, 0.7)
    if batches == "pairs":
        assert found == [*[one] * 5, *[two] * 5]
    else:  # in the place of images 7 and 8; all others are themselves
        assert found == sorted([one, two, *[(i, i, i, i, 1.0) for i in (0, 1, 2, 3, 4, 5, 6, 9)]])


def test_shares_fall_linearly_over_the_pairs_from_the_most_uncertain_one() -> None:
    explorer = explorer_that_ranks_by_index(100, 100)
    stream = BatchStream(numbered(100), 20, seed=0)
    batch = explorer.batch(stream, step_in_epoch(stream, 2))
    uncertain, confident, shares = explorer.pairs
    assert uncertain.tolist() == list(range(10, 20))
    assert confident.tolist() == list(range(80, 90))
    torch.testing.assert_close(shares, torch.tensor([1.0 - 0.3 * pair / 9 for pair in range(10)]))
    torch.testing.assert_close(batch.label_share, shares[batch.indices - 10])
    torch.testing.assert_close(batch.images.flatten(), batch.indices + (1 - batch.label_share) * 70.0)


def test_the_larger_share_gives_labels_and_indices() -> None:
    explorer = explorer_that_ranks_by_index(10, 10, first_share=0.2, last_share=0.2)
    stream = BatchStream(numbered(10), 4, seed=0)
    batch = explorer.batch(stream, step_in_epoch(stream, 2))
    assert batch.labels.tolist() == batch.indices.tolist() == [8] * 4
    assert batch.partner_labels.tolist() == [1] * 4
    torch.testing.assert_close(batch.label_share, torch.full((4,), 0.8))
    torch.testing.assert_close(batch.images.flatten(), torch.full((4,), 0.2 * 1 + 0.8 * 8))


def test_cross_entropies_are_mixed_like_the_pixels() -> None:
    student = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]).log().requires_grad_()
    teacher = torch.tensor([[0.125, 0.5, 0.375], [0.125, 0.5, 0.375]]).log()
    mix = {"partner_labels": torch.tensor([1, 2]), "label_share": torch.tensor([0.7, 1.0])}
    outputs = InstanceOutputs(student, teacher, torch.tensor([0, 0]), **mix)
    bits = torch.tensor([0.7 * 1 + 0.3 * 2, 1.0])
    torch.testing.assert_close(outputs.task_loss, bits * math.log(2))
    torch.testing.assert_close(outputs.student_cross_entropy, bits * math.log(2))
    torch.testing.assert_close(outputs.teacher_cross_entropy, torch.tensor([0.7 * 3 + 0.3 * 1, 3.0]) * math.log(2))
    assert outputs.is_mixed.tolist() == [True, False]
    torch.testing.assert_close(outputs.true_class(outputs.student_probabilities), torch.full((2,), 0.5))
    loss = create_method("cross_entropy")(outputs, Temperature.shared(torch.ones(2)))["task"].sum()
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(gradient[0], torch.tensor([0.5 - 0.7, 0.25 - 0.3, 0.25]))  # p minus the mixed label


def test_teacher_and_student_see_the_mixed_image(make_run: MakeRun) -> None:
    run = make_run(method="cross_entropy")
    explorer = explore(run, EVERY_SECOND_EPOCH)
    run.reset(0)
    step_to(run, 4)
    inputs: dict[str, Tensor] = {}

    def see(network: nn.Module, images: tuple[Tensor], _: Tensor) -> None:
        if network is run.teacher or network.training:  # not the student's evaluation for the reward
            inputs["teacher" if network is run.teacher else "student"] = images[0]

    handles = [network.register_forward_hook(see) for network in (run.teacher, run.student)]
    step_to(run, 5)
    for handle in handles:
        handle.remove()
    uncertain, confident, shares = explorer.pairs
    pair = (run.outputs.indices.unsqueeze(1) == uncertain).int().argmax(dim=1)
    images, share = run.splits.train.images, shares[pair].view(-1, 1, 1, 1)
    expected = share * images[uncertain[pair]] + (1 - share) * images[confident[pair]]
    assert torch.equal(inputs["teacher"], inputs["student"])
    torch.testing.assert_close(inputs["teacher"], expected)
    assert torch.equal(run.outputs.partner_labels, run.splits.train.labels[confident[pair]])
    log_p = run.outputs.student_logits.log_softmax(1)
    row, share = torch.arange(64), share.flatten()
    mixed = share * log_p[row, run.outputs.labels] + (1 - share) * log_p[row, run.outputs.partner_labels]
    result = run.step(random_temperatures(run, 5))
    torch.testing.assert_close(result.metrics["loss"], -mixed.mean().detach())


@pytest.mark.parametrize(("known", "pairs"), [(10, 1), (4, 1), (2, 1), (1, 0), (0, 0)])
def test_few_pairs_are_drawn_evenly_and_without_a_history_the_stream_goes_on(known: int, pairs: int) -> None:
    explorer = explorer_that_ranks_by_index(50, known)
    stream = BatchStream(numbered(50), 25, seed=0)
    step = step_in_epoch(stream, 2)
    batch = explorer.batch(stream, step)
    assert len(explorer.pairs[0]) == pairs
    if pairs:
        assert not set(explorer.pairs[0].tolist()) & set(explorer.pairs[1].tolist())
        assert set(batch.indices.tolist()) == set(explorer.pairs[0].tolist())
    else:
        assert torch.equal(batch.indices, stream.indices(step))
        assert batch.label_share is None


def test_a_batch_of_pairs_follows_from_seed_and_step_and_repeats_no_pair_without_need() -> None:
    explorer = explorer_that_ranks_by_index(100, 100)
    first, same, other = (BatchStream(numbered(100), 24, seed=seed) for seed in (0, 0, 1))
    steps = [step_in_epoch(first, 2) + position for position in range(2)]
    drawn = [explorer.batch(first, step).indices for step in steps]
    assert torch.equal(drawn[1], explorer.batch(same, steps[1]).indices)
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], explorer.batch(other, steps[0]).indices)
    for indices in drawn:
        assert set(indices.bincount(minlength=100)[10:20].tolist()) == {2, 3}


def test_pairs_hold_through_an_epoch_and_are_made_anew_for_the_next(make_run: MakeRun) -> None:
    run = make_run(epochs=5)
    explorer = explore(run, EVERY_SECOND_EPOCH)
    run.reset(0)
    by_step = []
    while not run.finished:
        by_step.append(explorer.pairs[0])
        run.step(random_temperatures(run, run.step_count))
    for step in (5, 6, 7, 8, 11):
        assert torch.equal(by_step[step], by_step[4])
    assert not torch.equal(by_step[12], by_step[4])


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        (Exploration(), [20, 40, 60]),
        (Exploration(first_epoch=3, last_epoch=5, interval=1), [3, 4, 5]),
        (Exploration(first_epoch=2, last_epoch=9, interval=3), [2, 5, 8]),
    ],
)
def test_the_exploring_epochs(settings: Exploration, epochs: list[int]) -> None:
    assert [epoch for epoch in range(1, 61) if settings.explores(epoch)] == epochs


def test_outside_its_epochs_a_run_is_the_same_as_without_an_explorer(make_run: MakeRun) -> None:
    plain, exploring = make_run(epochs=4), make_run(epochs=4)
    explore(exploring, Exploration(first_epoch=3, last_epoch=3, interval=1))
    for run in (plain, exploring):
        run.reset(0)
    for step in range(16):
        is_exploring = step // 4 == 2
        assert torch.equal(plain.outputs.indices, exploring.outputs.indices) != is_exploring
        assert (exploring.outputs.label_share is not None) == is_exploring
        assert plain.outputs.label_share is None
        if step < 8:
            assert_equal(plain.student.state_dict(), exploring.student.state_dict())
        results = [run.step(random_temperatures(run, step)) for run in (plain, exploring)]
        if step < 7:
            assert torch.equal(results[0].reward, results[1].reward)
        assert "mixed_share" not in results[0].metrics
        assert (float(results[1].metrics["mixed_share"]) > 0.9) == is_exploring


@pytest.mark.slow
@pytest.mark.parametrize("batches", ["pairs", "all"])
@pytest.mark.parametrize("steps_before", [3, 4, 5, 8, 9])
def test_a_fork_explores_on_bit_for_bit_and_leaves_its_parent_untouched(
    make_run: MakeRun, batches: str, steps_before: int
) -> None:
    run = make_run(epochs=4)
    explore(run, Exploration(first_epoch=2, interval=2, batches=batches))
    run.reset(3)
    step_to(run, steps_before)
    before = run.sampler.state_dict()
    fork = run.fork()
    assert_equal(fork.sampler.state_dict(), before)
    branch: list[StepResult] = []
    while not fork.finished:
        branch.append(fork.step(random_temperatures(fork, fork.step_count)))
    assert_equal(run.sampler.state_dict(), before)
    for expected in branch:
        result = run.step(random_temperatures(run, run.step_count))
        assert torch.equal(result.outputs.indices, expected.outputs.indices)
        assert torch.equal(result.state, expected.state)
        assert torch.equal(result.reward, expected.reward)
    assert_equal(run.student.state_dict(), fork.student.state_dict())
    assert_equal(run.sampler.state_dict(), fork.sampler.state_dict())


def test_a_snapshot_in_a_file_brings_back_the_waiting_batch(make_run: MakeRun, tmp_path) -> None:
    run, restored = make_run(), make_run()
    for each in (run, restored):
        explore(each, EVERY_SECOND_EPOCH)
    run.reset(0)
    step_to(run, 6)
    torch.save(run.state_dict(), tmp_path / "run.pt")
    restored.load_state_dict(torch.load(tmp_path / "run.pt", weights_only=True))
    for name in ("student_logits", "teacher_logits", "labels", "indices", "partner_labels", "label_share"):
        assert torch.equal(getattr(restored.outputs, name), getattr(run.outputs, name)), name
    for each in (run, restored):
        step_to(each, 12)
    assert_equal(restored.student.state_dict(), run.student.state_dict())


def test_a_snapshot_with_an_exploration_needs_an_explorer_and_the_other_way_round(make_run: MakeRun) -> None:
    plain, exploring = make_run(), make_run()
    explore(exploring, EVERY_SECOND_EPOCH)
    for run, other in ((plain, exploring), (exploring, plain)):
        run.reset(0)
        with pytest.raises(UsageError, match="needs a run with one"):
            other.load_state_dict(run.state_dict())


def test_an_explorer_begins_with_a_reset(make_run: MakeRun) -> None:
    run = make_run()
    run.reset(0)
    explorer = explore(run, EVERY_SECOND_EPOCH)
    with pytest.raises(RuntimeError, match="reset"):
        run.step(random_temperatures(run, 0))
    run.reset(0)
    step_to(run, 5)
    run.reset(1)
    assert int(explorer.scores.isfinite().sum()) == 64  # the first batch of the second run alone
    assert len(explorer.pairs[0]) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uncertain_ranks": (0.2, 0.1)}, "uncertain ranks must rise"),
        ({"uncertain_ranks": (-0.1, 0.0)}, "uncertain ranks must rise"),
        ({"confident_ranks": (0.95, 1.05)}, "confident ranks must rise"),
        ({"confident_ranks": (math.nan, 0.9)}, "confident ranks must be finite"),
        ({"confident_ranks": (0.15, 0.25)}, "must end before"),
        ({"confident_ranks": (0.7, 0.9)}, "equally many images, not shares of 0.1 and 0.2"),
        ({"first_share": 1.1}, "above 0 and at most 1, not 1.1"),
        ({"last_share": 0.0}, "above 0 and at most 1, not 0.0"),
        ({"first_epoch": 1}, "epoch 2 or later, not 1"),
        ({"last_epoch": 19}, "cannot end in epoch 19, before epoch 20"),
        ({"interval": 0}, "at least 1, not 0"),
        ({"batches": "pair"}, "Did you mean 'pairs'"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Exploration(**settings)


def test_an_exploration_after_the_run_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match="begins in epoch 20, but the run ends with epoch 3"):
        explore(make_run(), Exploration())
