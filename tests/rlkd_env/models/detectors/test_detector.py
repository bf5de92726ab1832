"""Faster R-CNN: what it computes, and what it cannot be."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from small_detectors import COLOUR, GREY, SMALL, STRIDES, TARGETS, detect, detector
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from rlkd_env.errors import UsageError
from rlkd_env.models import check_model, create_model, file_stem
from rlkd_env.models.create import create_to_load, is_same_model
from rlkd_env.models.storage import load_network, save_network
from rlkd_env.models.taps.features import forward_with_features
from rlkd_env.tasks.detection.average_precision import Detections, average_precision


def number_of_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


@pytest.mark.slow
def test_resnet50_is_torchvisions() -> None:
    with torch.device("meta"):
        ours = create_model("fasterrcnn/resnet50", 90, (3, 800, 1056))
        theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        frozen = create_to_load("fasterrcnn/resnet50", 90, (3, 800, 1056), pretrained="backbone")
        deeper = create_model("fasterrcnn/resnet101", 90, (3, 800, 1056))
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in theirs.state_dict().items()
    }
    assert ours.rpn.anchor_generator.sizes == ((32,), (64,), (128,), (256,), (512,))
    for stage in ("training", "testing"):
        assert ours.rpn._pre_nms_top_n[stage] == theirs.rpn._pre_nms_top_n[stage]
        assert ours.rpn._post_nms_top_n[stage] == theirs.rpn._post_nms_top_n[stage]
    for sampler in ("rpn", "roi_heads"):
        ours_sampler, theirs_sampler = (getattr(network, sampler).fg_bg_sampler for network in (ours, theirs))
        assert ours_sampler.batch_size_per_image == theirs_sampler.batch_size_per_image
    # The published number, as frozen normalisation has buffers in place of parameters.
    assert sum(parameter.numel() for parameter in frozen.parameters()) == 41_755_286
    assert number_of_parameters(deeper) - number_of_parameters(ours) == 18_992_128  # that ResNet101 has more


@pytest.mark.slow
def test_it_computes_what_torchvision_does() -> None:
    """torchvision with scaling and normalisation that do nothing."""
    torch.manual_seed(0)
    theirs = FasterRCNN(
        resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5),
        num_classes=4,
        min_size=128,
        max_size=128,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_pre_nms_top_n_test=100,
        rpn_post_nms_top_n_test=100,
        box_score_thresh=0.0,
    ).eval()
    ours = create_to_load("fasterrcnn/resnet18", 3, (3, 128, 128), testing_proposals=100, anchor_scale=8).eval()
    ours.roi_heads.score_thresh = 0.0
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        for expected, given in zip(theirs(list(images)), ours(images), strict=True):
            assert len(expected["boxes"]) > 50
            for name, values in expected.items():
                torch.testing.assert_close(given[name], values)


def test_images_and_boxes_stay_as_they_are() -> None:
    network = detector()
    images = torch.randn(2, *GREY)
    given, targets = network.transform(images, TARGETS)
    assert torch.equal(given.tensors, images)
    assert targets is TARGETS
    assert given.image_sizes == [(64, 64)] * 2
    network = detector("vgg8", shape=(1, 33, 47))  # halved three times where images are below 64 pixels
    given, _ = network.transform(torch.ones(2, 1, 33, 47))
    assert given.tensors.shape == (2, 1, 40, 48)
    assert torch.equal(given.tensors[:, :, :33, :47], torch.ones(2, 1, 33, 47))
    assert given.tensors.sum() == 2 * 33 * 47
    network.roi_heads.score_thresh = 0.0
    for found in network.eval()(torch.randn(2, 1, 33, 47)):
        left, top, right, bottom = found["boxes"].unbind(1)
        assert len(left)
        assert (left >= 0).all()
        assert (top >= 0).all()
        assert (right <= 47).all()
        assert (bottom <= 33).all()


def test_anchors_lie_where_the_maps_see() -> None:
    network = detector("vgg8", shape=(1, 33, 47))
    images, _ = network.transform(torch.randn(1, 1, 33, 47))
    maps = network.backbone(images.tensors)
    (anchors,) = network.rpn.anchor_generator(images, list(maps.values()))
    strides = [2, 4, 8]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    first = 0
    for stride, values in zip(strides, maps.values(), strict=False):
        height, width = values.shape[-2:]
        assert (height, width) == (40 // stride, 48 // stride)
        assert centres[first : first + 3 * height * width].max(0).values.tolist() == [48 - stride, 40 - stride]
        first += 3 * height * width
    assert network.roi_heads.box_roi_pool.scales == [1 / stride for stride in strides]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "shape", "scale"),
    [("cnn8", GREY, 8), ("cnn8", (1, 16, 16), 2), ("resnet18", COLOUR, 1), ("resnet18", (3, 416, 352), 8)],
)
def test_anchors_follow_from_strides_and_size(backbone: str, shape: tuple[int, int, int], scale: int) -> None:
    network = detector(backbone, shape=shape)
    strides = STRIDES[backbone]
    assert network.rpn.anchor_generator.sizes == tuple((scale * stride,) for stride in (*strides, 2 * strides[-1]))
    mapper = network.roi_heads.box_roi_pool.map_levels
    side = 1.75 * scale * strides[1]  # the smallest proposal that is read from the second map
    boxes = torch.tensor([[0, 0, side - 0.1, side - 0.1], [0, 0, side, side]])
    assert mapper([boxes]).tolist() == [0, 1]
    given = detector(backbone, shape=shape, anchor_scale=6)
    assert given.rpn.anchor_generator.sizes[0] == (6 * strides[0],)


def test_small_images_have_few_proposals() -> None:
    network = detector()
    assert network.rpn._pre_nms_top_n == network.rpn._post_nms_top_n == {"training": 128, "testing": 64}
    assert network.roi_heads.fg_bg_sampler.batch_size_per_image == 64
    network = detector(training_proposals=20, testing_proposals=10, sampled_proposals=8, detections=5, finest_stride=1)
    assert network.rpn._post_nms_top_n == {"training": 20, "testing": 10}
    assert network.roi_heads.fg_bg_sampler.batch_size_per_image == 8
    assert network.backbone.strides == (1, 2, 4)
    network.roi_heads.score_thresh = 0.0
    assert [len(found["boxes"]) for found in network.eval()(torch.randn(2, *GREY))] == [5, 5]


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("resnet9", GREY, {}, "unknown backbone of a detector 'resnet9'.*Valid: .*cnn16.*mobilenet_v3_small.*resnet50"),
        ("mlp12", GREY, {}, "unknown backbone"),
        ("digits_cnn", GREY, {}, "unknown backbone"),
        ("resnet18", (3, 48, 64), {}, "needs images of at least 64 by 64 pixels, not 48 by 64.*resnet20"),
        ("resnet8", (1, 4, 4), {}, "at least 8 by 8 pixels"),
        (
            "resnet8",
            GREY,
            {"fpn_chanels": 8},
            "unknown option of a detector 'fpn_chanels'. Did you mean 'fpn_channels'",
        ),
        ("resnet8", GREY, {"head_width": 0}, "'head_width' of a detector is a whole number above 0, not 0"),
        ("resnet8", GREY, {"head_width": 1.5}, "is a whole number"),
        ("resnet8", GREY, {"head_width": True}, "is a whole number"),
        ("resnet8", GREY, {"anchor_scale": "x"}, "is a number above 0, not 'x'"),
        ("resnet8", GREY, {"finest_stride": 8}, r"strides \[1, 2, 4\], none of 8 or more"),
        ("resnet8", GREY, {"pretrained": "yes"}, "unknown kind of pretrained weights 'yes'.*backbone, coco, none"),
        ("resnet8", GREY, {"pretrained": "backbone"}, "no pretrained weights of resnet8, only of .*resnet101"),
        ("resnet18", COLOUR, {"pretrained": "coco"}, "COCO weights only for fasterrcnn/resnet50, not for resnet18"),
        ("resnet8", GREY, {"classifier": "fc"}, "no module 'fc'"),
    ],
)
def test_what_cannot_be_built_is_told(name: str, shape: tuple, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        create_model(f"fasterrcnn/{name}", 3, shape, **options)
    assert "\n" not in str(error.value)


def test_names() -> None:
    check_model("fasterrcnn/resnet18")
    check_model("fasterrcnn/resnet8")
    with pytest.raises(UsageError, match="Did you mean 'resnet8'"):
        check_model("fasterrcnn/resnt8")
    with pytest.raises(UsageError, match="detectors, such as fasterrcnn/resnet18"):
        check_model("fastercnn/resnet18")
    assert is_same_model("fasterrcnn/MobileNetV2", "fasterrcnn/mobilenet_v2_half")
    assert not is_same_model("fasterrcnn/mobilenet_v2", "fasterrcnn/mobilenet_v2_half")
    assert not is_same_model("fasterrcnn/resnet8", "resnet8")
    assert file_stem("fasterrcnn/resnet8") == "fasterrcnn-resnet8"


def test_taps_can_be_named() -> None:
    network = detector(stages="backbone.fpn.inner_blocks.1")
    _, features = forward_with_features(network.eval(), torch.randn(2, *GREY))
    assert [tuple(stage.shape) for stage in features.stages] == [(2, 16, 16, 16)]


def test_copies_and_files_are_the_same_network(tmp_path: Path) -> None:
    network = detector("resnet8")
    network.train()(torch.randn(2, *GREY), TARGETS)  # moves running statistics
    images = torch.randn(2, *GREY)
    expected = detect(network, images)
    assert len(expected[0]) > 0
    path = tmp_path / "teacher.safetensors"
    save_network(path, network.state_dict(), "fasterrcnn/resnet8", 3, GREY, SMALL)
    other = detector("resnet8", head_width=16)
    other.load_state_dict(network.state_dict())
    for again in (copy.deepcopy(network), load_network(path, 3, GREY), other):
        for value, same in zip(expected, detect(again, images), strict=True):
            assert torch.equal(value, same)
    with pytest.raises(UsageError, match="knows 3 classes"):
        load_network(path, 4, GREY)
    with pytest.raises(UsageError, match="holds a network 'fasterrcnn/resnet8', not 'resnet8'"):
        load_network(path, 3, GREY, model="resnet8")


def test_a_detector_of_colour_takes_grey_images(tmp_path: Path) -> None:
    network = detector(shape=COLOUR)
    path = tmp_path / "teacher.safetensors"
    save_network(path, network.state_dict(), "fasterrcnn/cnn4", 3, COLOUR, SMALL)
    with pytest.warns(UserWarning, match="takes colour images"):
        grey = load_network(path, 3, GREY)
    image = torch.randn(1, *GREY)
    in_colour = image.expand(-1, 3, -1, -1)
    for value, same in zip(detect(network, in_colour), detect(grey, image), strict=True):
        assert torch.equal(value, same)
    assert torch.equal(grey.backbone(image)["0"], network.backbone(in_colour)["0"])


def squares(number: int, seed: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Noise with one to three bright squares, of 6 to 9 or of 16 to 20 pixels: the classes 1 and 2."""
    generator = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    images = 0.3 * torch.randn(number, 1, 48, 48, generator=generator)
    targets = []
    for image in images:
        boxes: list[tuple[int, ...]] = []
        labels = []
        for _ in range(whole(1, 4)):
            label = whole(1, 3)
            side = whole(6, 10) if label == 1 else whole(16, 21)
            left, top = whole(0, 49 - side), whole(0, 49 - side)
            box = (left, top, left + side, top + side)
            if any(box[0] < b[2] and box[1] < b[3] and box[2] > b[0] and box[3] > b[1] for b in boxes):
                continue
            image[0, top : box[3], left : box[2]] += 2
            boxes.append(box)
            labels.append(label)
        targets.append({"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels)})
    return images, targets


def coco_format(targets: list[dict[str, Tensor]]) -> dict:
    annotations = [
        {"id": 0, "image_id": number, "category_id": int(label), "iscrowd": 0}
        | {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
        for number, target in enumerate(targets, start=1)
        for (left, top, right, bottom), label in zip(target["boxes"].tolist(), target["labels"], strict=True)
    ]
    images = [{"id": number} for number in range(1, len(targets) + 1)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1}, {"id": 2}]}


@pytest.mark.slow
def test_a_small_detector_learns() -> None:
    """120 updates gave an AP50 of 0.99 or more with each of three seeds."""
    images, targets = squares(128, seed=1)
    network = detector("cnn8", classes=2, shape=(1, 48, 48), fpn_channels=32, head_width=64, roi_size=5).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for step in range(120):
        chosen = torch.arange(4 * step, 4 * step + 4) % len(images)
        losses = network(images[chosen], [targets[index] for index in chosen])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    images, targets = squares(48, seed=2)
    with torch.no_grad():
        found = [Detections(one["boxes"], one["scores"], one["labels"]) for one in network.eval()(images)]
    assert average_precision(coco_format(targets), found)["AP50"] > 0.8
