"""The decoder of instance-conditional distillation against its definition, and what it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_detection import SIZES, random_maps, some_boxes
from torch import Tensor, nn

from rlkd_env.data.boxes import Boxes
from rlkd_env.methods.detection.icd.decoder import (
    CrossAttention,
    InstanceDecoder,
    attention_masks,
    position_embedding,
    shown_positions,
)
from rlkd_env.methods.detection.icd.method import identification_loss, offset_loss
from rlkd_env.methods.detection.icd.queries import Queries, sample_queries

HEADS, WIDTH = 8, 16
POSITIONS = sum(rows * columns for rows, columns in SIZES)


def queries_of_some_boxes() -> Queries:
    torch.manual_seed(0)
    return sample_queries(some_boxes(), height=32, width=48)


def decoder_in_float64() -> InstanceDecoder:
    torch.manual_seed(1)
    return InstanceDecoder(num_classes=3, width=WIDTH, heads=HEADS).double()


def some_features(images: int = 3) -> Tensor:
    maps = random_maps(images, WIDTH)
    return torch.cat([each.flatten(start_dim=2) for each in maps], dim=-1).transpose(1, 2)


def as_torchs(attention: CrossAttention) -> nn.MultiheadAttention:
    """PyTorch's own attention with the same weights."""
    own = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    with torch.no_grad():
        parts = (attention.query, attention.key, attention.value)
        own.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        own.in_proj_bias.copy_(torch.cat([attention.query.bias, torch.zeros(WIDTH), attention.value.bias]))
        own.out_proj.weight.copy_(attention.output.weight)
        own.out_proj.bias.copy_(attention.output.bias)
    return own


def test_the_attention_and_its_masks_are_pytorchs() -> None:
    torch.manual_seed(2)
    attention = CrossAttention(WIDTH, HEADS).double()
    asked, keys, values = (torch.randn(3, count, WIDTH, dtype=torch.float64) for count in (5, 9, 9))
    query, key, value = attention.project(asked, keys, values)
    gathered, masks = as_torchs(attention)(asked, keys, values, average_attn_weights=False)
    torch.testing.assert_close(attention(query, key, value), gathered)
    torch.testing.assert_close(attention_masks(query, key), masks)


def test_positions_are_embedded_by_the_sines_and_cosines_of_their_middle() -> None:
    found = position_embedding(SIZES, WIDTH)
    waves = [10000.0 ** (2 * i / (WIDTH // 2)) for i in range(WIDTH // 4)]
    expected = []
    for rows, columns in SIZES:
        for row in range(rows):
            for column in range(columns):
                embedding = []
                for share in ((column + 0.5) / columns, (row + 0.5) / rows):
                    embedding += [math.sin(2 * math.pi * share / wave) for wave in waves]
                    embedding += [math.cos(2 * math.pi * share / wave) for wave in waves]
                expected.append(embedding)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    product = x @ layer.weight.detach().numpy().T
    return product if layer.bias is None else product + layer.bias.detach().numpy()


def mlp(layers: nn.Sequential, x: np.ndarray) -> np.ndarray:
    *hidden, last = [layer for layer in layers if isinstance(layer, nn.Linear)]
    for layer in hidden:
        x = np.maximum(linear(layer, x), 0.0)
    return linear(last, x)


def layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)


def shown_by_hand() -> Tensor:
    """Which positions of maps of 4 x 6 and 2 x 3 see more than the border of three images of 48 x 32.

    They show all, the left 17 of 48 columns (three of six, two of three), and, mirrored, the right 31 of 48 and the top
    8 of 32 rows.
    """
    images = []
    for rows, columns, small_rows, small_columns in (
        (range(4), range(6), range(2), range(3)),
        (range(4), range(3), range(2), range(2)),
        (range(1), range(2, 6), range(1), range(1, 3)),
    ):
        large = [row in rows and column in columns for row in range(4) for column in range(6)]
        images.append(
            large + [row in small_rows and column in small_columns for row in range(2) for column in range(3)]
        )
    return torch.tensor(images)


def test_positions_are_shown_if_they_see_a_pixel_of_the_image() -> None:
    shown = torch.tensor([[0.0, 0, 48, 32], [0, 0, 17, 32], [17, 0, 48, 8]])
    assert torch.equal(shown_positions(shown, SIZES, height=32, width=48), shown_by_hand())


def test_what_a_border_shows_changes_nothing() -> None:
    decoder, queries, features = decoder_in_float64(), queries_of_some_boxes(), some_features()
    positions, is_shown = position_embedding(SIZES, WIDTH).double(), shown_by_hand()
    other = torch.where(is_shown.unsqueeze(-1), features, features + 5.0)
    before, after = (decoder(queries, maps, positions, is_shown) for maps in (features, other))
    torch.testing.assert_close(before.real_logits, after.real_logits)
    torch.testing.assert_close(before.mask, after.mask)
    assert before.mask.masked_select(~is_shown.unsqueeze(1)).abs().max() == 0, "so it is not imitated either"


@pytest.mark.parametrize("has_borders", [False, True])
def test_the_decoder_equals_its_definition_query_by_query(has_borders: bool) -> None:
    decoder, queries, features = decoder_in_float64(), queries_of_some_boxes(), some_features()
    positions = position_embedding(SIZES, WIDTH).double()
    is_shown = shown_by_hand() if has_borders else None
    decoded = decoder(queries, features, positions, is_shown)
    vectors, size = queries.vectors(3, WIDTH).numpy(), WIDTH // HEADS
    for image in range(3):
        key = linear(decoder.attention.key, features[image].numpy() + linear(decoder.position, positions.numpy()))
        value = linear(decoder.attention.value, features[image].numpy())
        mask = np.zeros((HEADS, POSITIONS))
        for at in range(vectors.shape[1]):
            asked = mlp(decoder.encoder, vectors[image, at])
            query, gathered = linear(decoder.attention.query, asked), np.zeros(WIDTH)
            for head in range(HEADS):
                own = slice(head * size, (head + 1) * size)
                scores = np.exp(key[:, own] @ query[own] / math.sqrt(size))
                scores *= 1.0 if is_shown is None else is_shown[image].numpy()
                gathered[own] = scores / scores.sum() @ value[:, own]
                mask[head] += float(queries.is_real[image, at]) * scores / scores.sum()
            x = layer_norm(asked + linear(decoder.attention.output, gathered))
            x = layer_norm(x + mlp(decoder.feed_forward, x))
            predicted = mlp(decoder.predictor, x)
            np.testing.assert_allclose(decoded.real_logits[image, at].item(), predicted[0], rtol=1e-8, atol=1e-10)
            sides = 1.0 / (1.0 + np.exp(-predicted[1:]))
            np.testing.assert_allclose(decoded.offsets[image, at].detach(), sides, rtol=1e-8)
        np.testing.assert_allclose(decoded.mask[image], mask, rtol=1e-8, atol=1e-12)
        heads = value.reshape(POSITIONS, HEADS, size).transpose(1, 0, 2)
        np.testing.assert_allclose(decoded.values[image], heads, rtol=1e-8, atol=1e-12)


def test_an_images_mask_weighs_as_much_as_it_has_boxes_and_carries_no_gradient() -> None:
    decoder = decoder_in_float64()
    decoded = decoder(queries_of_some_boxes(), some_features(), position_embedding(SIZES, WIDTH).double())
    expected = torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64).unsqueeze(1).expand(-1, HEADS)
    torch.testing.assert_close(decoded.mask.sum(dim=-1), expected)
    assert not decoded.mask.requires_grad
    assert not decoded.values.requires_grad
    assert decoded.real_logits.requires_grad


def test_identification_is_the_binary_cross_entropy_over_an_images_queries() -> None:
    queries = queries_of_some_boxes()
    logits = torch.randn(queries.is_used.shape, dtype=torch.float64)
    found = identification_loss(logits, queries)
    for image in range(3):
        losses = []
        for at in queries.is_used[image].nonzero().flatten().tolist():
            probability = 1.0 / (1.0 + math.exp(-logits[image, at].item()))
            losses.append(-math.log(probability if queries.is_real[image, at] else 1.0 - probability))
        expected = sum(losses) / len(losses) if losses else 0.0
        assert found[image].item() == pytest.approx(expected, rel=1e-9)


def test_offsets_are_measured_in_the_boxs_own_extent_and_of_real_boxes_alone() -> None:
    queries = queries_of_some_boxes()
    offsets = torch.rand(*queries.is_used.shape, 4, dtype=torch.float64)
    found = offset_loss(offsets, queries)
    for image in range(3):
        losses = []
        for at in queries.is_real[image].nonzero().flatten().tolist():
            left, top, right, bottom = queries.corners[image, at].tolist()
            x, y = queries.centres[image, at].tolist()
            predicted = offsets[image, at].tolist()
            error = abs(predicted[0] - (x - left)) + abs(predicted[2] - (right - x))
            losses.append(error / (right - left))
            error = abs(predicted[1] - (y - top)) + abs(predicted[3] - (bottom - y))
            losses[-1] += error / (bottom - top)
        expected = sum(losses) / len(losses) if losses else 0.0
        assert found[image].item() == pytest.approx(expected, rel=1e-9)
    perfect = queries.offsets.clamp(0, 1)
    assert offset_loss(perfect, queries).abs().max() < 1e-12


def test_queries_that_fill_up_an_image_change_nothing() -> None:
    decoder, features = decoder_in_float64(), some_features()
    positions = position_embedding(SIZES, WIDTH).double()
    queries = queries_of_some_boxes()
    alone = Queries(
        *(getattr(queries, name)[2:, [0, 2, 3, 4, 5, 6]] for name in ("classes", "corners", "sizes", "centres")),
        is_real=queries.is_real[2:, [0, 2, 3, 4, 5, 6]],
        is_used=queries.is_used[2:, [0, 2, 3, 4, 5, 6]],
        num_real=1,
    )
    assert alone.is_used.all()
    together, single = decoder(queries, features, positions), decoder(alone, features[2:], positions)
    torch.testing.assert_close(single.mask[0], together.mask[2])
    for loss, of in ((identification_loss, "real_logits"), (offset_loss, "offsets")):
        torch.testing.assert_close(loss(getattr(single, of), alone)[0], loss(getattr(together, of), queries)[2])


@pytest.mark.slow
def test_the_decoder_learns_from_the_maps_which_boxes_are_real() -> None:
    """One box of 3 x 3 cells somewhere, which the maps show; without that, 500 updates end at 0.38 nats."""
    torch.manual_seed(3)
    images, cells = 16, torch.arange(8)
    decoder, positions = InstanceDecoder(num_classes=3, width=64, heads=8), position_embedding([(8, 8)], 64)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-3)
    losses = []
    for _ in range(500):
        corner = torch.randint(6, (images, 2))
        corners = 4.0 * torch.cat([corner, corner + 3], dim=1).unsqueeze(1)
        boxes = Boxes(corners, torch.ones(images, 1, dtype=torch.int64), torch.zeros(images, 1, dtype=torch.bool))
        columns, rows = ((cells >= corner[:, axis, None]) & (cells < corner[:, axis, None] + 3) for axis in (0, 1))
        maps = 0.1 * torch.randn(images, 8, 8, 64)
        maps[..., 0] += 3.0 * (rows[:, :, None] & columns[:, None, :])
        queries = sample_queries(boxes, 32, 32)
        decoded = decoder(queries, maps.flatten(1, 2), positions)
        identification = identification_loss(decoded.real_logits, queries).mean()
        optimizer.zero_grad()
        (identification + offset_loss(decoded.offsets, queries).mean()).backward()
        optimizer.step()
        losses.append(identification.item())
    assert np.mean(losses[-30:]) < 0.28
