"""CRD against its definition, written out in float64 with Python loops, and its negatives and memories."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_networks import at_temperature, pooled_outputs, pooled_pair
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods import CRD, create_method
from rlkd_env.methods.relations.crd import NegativeSampler, bank_scores, contrastive_loss


def setting(
    n: int = 7, images: int = 100, classes: int = 10, dtype: torch.dtype = torch.float64, **options: float
) -> tuple[CRD, InstanceOutputs]:
    """A method of width 6 for features of 5 and 9 dimensions, and outputs of ``n`` different images."""
    torch.manual_seed(n)
    labels = torch.arange(images) % classes
    method = create_method("crd", pooled_pair(5, 9, labels), **{"negatives": 20, "width": 6, **options}).to(dtype)
    indices = torch.randperm(images)[:n]
    student, teacher = torch.randn(n, 5).to(dtype), torch.randn(n, 9).to(dtype)
    return method, pooled_outputs(student, teacher, labels[indices], indices)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / math.sqrt(math.fsum(float(x) ** 2 for x in vector))


class ByDefinition:
    """The method's state in float64 and its loss in loops: once with the student as anchor, once with the teacher."""

    def __init__(self, method: CRD) -> None:
        self.state = {name: value.detach().double().numpy().copy() for name, value in method.state_dict().items()}
        self.normalizer: dict[str, float] = {}

    def embed(self, side: str, feature: Tensor) -> np.ndarray:
        weight, bias = self.state[f"{side}_embedding.weight"], self.state[f"{side}_embedding.bias"]
        return unit(weight @ feature.double().numpy() + bias)

    def losses(self, outputs: InstanceOutputs, entries: Tensor) -> list[float]:
        total = [0.0] * len(entries)
        features = {"student": outputs.student_features.pooled, "teacher": outputs.teacher_features.pooled}
        for anchor, memory in (("student", "teacher"), ("teacher", "student")):
            bank = self.state[f"{memory}_memory.embeddings"]
            ratios = [
                [math.exp(float(self.embed(anchor, feature) @ bank[entry]) / 0.07) for entry in row]
                for feature, row in zip(features[anchor], entries.tolist(), strict=True)
            ]
            if anchor not in self.normalizer:
                self.normalizer[anchor] = len(bank) * float(np.mean(ratios))
            c = (entries.shape[1] - 1) / len(bank)
            for i, row in enumerate(ratios):
                positive, *negatives = (ratio / self.normalizer[anchor] for ratio in row)
                total[i] -= math.log(positive / (positive + c)) + sum(math.log(c / (h + c)) for h in negatives)
        return total

    def update(self, outputs: InstanceOutputs) -> None:
        features = {"student": outputs.student_features.pooled, "teacher": outputs.teacher_features.pooled}
        for side, values in features.items():
            bank = self.state[f"{side}_memory.embeddings"]
            for index, feature in zip(outputs.indices.tolist(), values, strict=True):
                bank[index] = unit(0.5 * bank[index] + 0.5 * self.embed(side, feature))


@pytest.mark.parametrize("n", [2, 7, 64])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_loss_normaliser_and_memory_equal_their_definition(n: int, dtype: torch.dtype, tolerance: float) -> None:
    method, outputs = setting(n, dtype=dtype)
    definition = ByDefinition(method)
    for _ in range(3):
        entries = torch.cat([outputs.indices[:, None], method.sampler(outputs.labels, 20)], dim=1)
        expected = definition.losses(outputs, entries)
        computed = method.contrast(outputs, entries).detach().double()
        np.testing.assert_allclose(computed, expected, rtol=tolerance)
        np.testing.assert_allclose(computed.mean(), np.mean(expected), rtol=tolerance)
        method.after_update(outputs)
        definition.update(outputs)
        for side in ("student", "teacher"):
            memory = getattr(method, f"{side}_memory").embeddings.double()
            np.testing.assert_allclose(memory, definition.state[f"{side}_memory.embeddings"], atol=tolerance)
    normalizer = (
        method.teacher_memory.log_normalizer.double().exp()
    )  # of the teacher's entries, anchored by the student
    np.testing.assert_allclose(normalizer, definition.normalizer["student"], rtol=tolerance)


def test_the_term_is_the_mean_over_drawn_negatives_weighed_by_0_8() -> None:
    method, outputs = setting()
    torch.manual_seed(3)
    entries = torch.cat([outputs.indices[:, None], method.sampler(outputs.labels, 20)], dim=1)
    torch.manual_seed(3)
    parts = method(outputs, at_temperature(7))
    assert method.is_stochastic
    assert list(parts) == ["task", "kd", "crd"]
    torch.testing.assert_close(parts["crd"], 0.8 * method.contrast(outputs, entries))


def test_negatives_are_uniform_over_the_images_of_other_classes() -> None:
    labels = torch.tensor([4, 0, 4, 1, 0, 0, 4, 1, 6, 4])  # neither sorted nor without gaps
    asked = torch.tensor([0, 4, 6, 1])
    torch.manual_seed(0)
    drawn = NegativeSampler(labels)(asked, 20_000)
    for row, label in zip(drawn, asked, strict=True):
        counts = row.bincount(minlength=10).double()
        others = labels != label
        assert counts[~others].sum() == 0
        expected = 20_000 / int(others.sum())
        assert ((counts[others] - expected).abs() < 5 * math.sqrt(expected)).all()


def test_scores_equal_a_gather_of_the_bank_and_so_do_their_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlkd_env.methods.relations.crd._LARGEST_PRODUCT", 100)  # 2 anchors at a time
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    anchors = torch.randn(7, 6, generator=generator, dtype=torch.float64).requires_grad_(True)
    indices = torch.randint(50, (7, 80), generator=generator)
    weights = torch.randn(7, 80, generator=generator, dtype=torch.float64)
    expected = torch.einsum("nkd,nd->nk", bank[indices], anchors)
    (gradient,) = torch.autograd.grad((weights * expected).sum(), anchors)
    computed = bank_scores(anchors, bank, indices)
    torch.testing.assert_close(computed, expected)
    torch.testing.assert_close(torch.autograd.grad((weights * computed).sum(), anchors)[0], gradient)


class LargestTensor(TorchDispatchMode):
    """Remembers the largest number of entries of any result."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.entries = max(self.entries, result.numel())
        return result


def test_no_step_holds_the_gathered_negatives() -> None:
    method, outputs = setting(n=8, images=500, negatives=400, width=64)
    with LargestTensor() as largest:
        method(outputs, at_temperature(8))["crd"].sum().backward()
        method.after_update(outputs)
    assert largest.entries == 500 * 64  # the bank, whose N · K · width negatives would be 204,800


def test_of_an_index_that_is_there_twice_the_last_embedding_is_remembered() -> None:
    method, outputs = setting(n=4)
    outputs.indices[3] = outputs.indices[1]
    before = method.student_memory.embeddings.clone()
    method(outputs, at_temperature(4))
    embedding = method.student_embedding(outputs.student_features.pooled[3])
    method.after_update(outputs)
    mixed = 0.5 * before[outputs.indices[3]] + 0.5 * embedding / embedding.norm()
    torch.testing.assert_close(method.student_memory.embeddings[outputs.indices[1]], mixed / mixed.norm())
    untouched = torch.ones(100, dtype=torch.bool).index_fill(0, outputs.indices, False)
    assert torch.equal(method.student_memory.embeddings[untouched], before[untouched])


def test_gradcheck_by_features_and_embeddings() -> None:
    method, outputs = setting(n=3)
    entries = torch.cat([outputs.indices[:, None], method.sampler(outputs.labels, 20)], dim=1)
    method.contrast(outputs, entries)
    method.after_update(outputs)  # fixes Z, which has no gradient
    student, teacher = outputs.student_features.pooled, outputs.teacher_features.pooled
    parameters = list(method.parameters())

    def loss(features: Tensor, *_: Tensor) -> Tensor:
        return method.contrast(pooled_outputs(features, teacher, outputs.labels, outputs.indices), entries)

    assert torch.autograd.gradcheck(loss, (student.requires_grad_(True), *parameters))


def test_extreme_scores_give_no_nan() -> None:
    logits = torch.tensor([[1e4, -1e4, 1e4], [-1e4, 1e4, -1e4]], requires_grad=True)
    loss = contrastive_loss(logits, 10)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()


def test_an_update_without_a_loss_is_refused() -> None:
    method, outputs = setting()
    with pytest.raises(RuntimeError, match="without a loss"):
        method.after_update(outputs)


def test_a_training_set_of_one_class_is_refused() -> None:
    with pytest.raises(UsageError, match="at least two classes"):
        create_method("crd", pooled_pair(5, 9, torch.full((20,), 3)))


@pytest.mark.parametrize("options", [{"negatives": 0}, {"width": 0}, {"momentum": 1.0}, {"contrast_temperature": 0.0}])
def test_options_out_of_their_range_are_refused(options: dict[str, float]) -> None:
    name = next(iter(options)).replace("_", " ")
    with pytest.raises(UsageError, match=f"method 'crd': {name} must be"):
        setting(**options)
