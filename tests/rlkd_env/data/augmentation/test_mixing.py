"""Mixes are torchvision's, labels are mixed as they are, and teacher and student see the same mix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from image_files import write_npz
from torch import Tensor, nn
from torchvision.transforms import v2

from agents.rules.simple import FixedTemperature
from rlkd_env.data import Batch, BatchStream, MemoryImages
from rlkd_env.data.augmentation import Mixing
from rlkd_env.errors import UsageError
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.seeds import mixed_seed

CLASSES = 4
MakeRun = Callable[..., DistillationRun]
BOTH = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}


def images_set() -> MemoryImages:
    generator = torch.Generator().manual_seed(0)
    return MemoryImages(torch.rand(40, 3, 8, 8, generator=generator), torch.arange(40) % CLASSES)


def soft_labels(batch: Batch) -> Tensor:
    assert batch.partner_labels is not None
    assert batch.label_share is not None
    share = batch.label_share.unsqueeze(1)
    return share * F.one_hot(batch.labels, CLASSES) + (1 - share) * F.one_hot(batch.partner_labels, CLASSES)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_batch_is_mixed_as_torchvision_mixes_it(kind: str) -> None:
    plain = BatchStream(images_set(), 8, seed=3)
    alphas = (1.0, 0.0) if kind == "mixup" else (0.0, 1.0)
    mixed = BatchStream(images_set(), 8, seed=3, mixing=Mixing(*alphas))
    swapped = []
    for step in range(8):
        batch, expected = mixed.batch(step), plain.batch(step)
        torch.manual_seed(mixed_seed(3, step, 3))
        torch.randint(1, ())  # which of the two
        transform = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[kind](alpha=1.0, num_classes=CLASSES)
        images, labels = transform(expected.images, expected.labels)
        torch.testing.assert_close(batch.images, images)
        torch.testing.assert_close(soft_labels(batch), labels)
        assert batch.view is None
        assert batch.label_share is not None
        assert batch.label_share.min() >= 0.5
        swapped.append(not torch.equal(batch.indices, expected.indices))
        owners = images_set().labels[batch.indices]
        assert torch.equal(owners, batch.labels), "the index is that of the larger share"
    assert len(set(swapped)) == 2


def test_with_both_a_draw_decides_and_a_block_is_its_batches() -> None:
    stream = BatchStream(images_set(), 8, seed=3, mixing=Mixing(0.4, 1.0))
    batches = [stream.batch(step) for step in range(5)]
    block = stream.block(0, 5)
    for name, values in block.tensors().items():
        assert torch.equal(values, torch.cat([getattr(batch, name) for batch in batches]))
    kinds = {
        bool((batch.images[..., 0, 0] - plain.images[..., 0, 0]).abs().max() == 0)
        for batch, plain in zip(
            (stream.batch(step) for step in range(20)),
            (BatchStream(images_set(), 8, 3).batch(step) for step in range(20)),
            strict=True,
        )
    }
    assert kinds == {True, False}, "a corner is as it was with most rectangles, and never with mixup"


def test_both_networks_see_the_mix_and_losses_are_mixed(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Teacher(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return super().forward(images)

    def network(kind: type = nn.Sequential) -> nn.Module:
        return kind(nn.Flatten(), nn.Linear(192, CLASSES))

    keywords = {"dataset": "arrays", "data_path": str(write_npz(tmp_path / "a.npz")), "batch_size": 16, "device": "cpu"}
    options = {**keywords, "mixup_alpha": 1.0, "label_smoothing": 0.1}
    run = build_run(RunConfig.from_keywords(options), teacher=network(Teacher), student=network)
    seen.clear()
    run.reset(0)
    assert torch.equal(seen[-1], run.batch.images)
    expected = F.cross_entropy(
        run.outputs.student_logits, soft_labels(run.batch), label_smoothing=0.1, reduction="none"
    )
    torch.testing.assert_close(run.outputs.task_loss, expected)
    torch.testing.assert_close(run.task.training_loss(run.student, run.batch), expected.mean())
    unmixed = replace(run.batch, partner_labels=None, label_share=None)
    plain = F.cross_entropy(run.outputs.student_logits, run.batch.labels, label_smoothing=0.1)
    torch.testing.assert_close(run.task.training_loss(run.student, unmixed), plain)


@pytest.mark.parametrize("settings", [{}, {"views": 1}, {"curriculum_phases": 3}])
def test_a_run_on_mixes_goes_on_bit_for_bit(make_run: MakeRun, settings: dict[str, Any]) -> None:
    run = make_run(**BOTH, **settings)
    run.reset(0)
    run.advance(FixedTemperature(4.0), 9)
    fork = run.fork()
    for one in (run, fork):
        one.advance(FixedTemperature(4.0))
    for name, value in run.student.state_dict().items():
        assert torch.equal(value, fork.student.state_dict()[name])
    assert bool(run.outputs.is_mixed.all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "digits_detection", "mixup_alpha": 0.2}, "mixup and CutMix are for classification"),
        ({"dataset": "digits_detection", "random_erase": 0.2}, "not for digits_detection"),
        ({"class_balanced": True, "curriculum_phases": 3}, "leave --class-balanced away"),
    ],
)
def test_what_does_not_go_together_is_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_run(RunConfig.from_keywords(device="cpu", **settings))
