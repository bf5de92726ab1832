"""``rlkd export``: a run's student in a form that needs nothing of this package, and its model card."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.config import ExportConfig
from experiments.next_command import tell_next
from experiments.report.model_card import model_card
from experiments.session.folder import EXPORT_FOLDER, SUMMARY_FILE
from rlkd_env.errors import UsageError, missing_package
from rlkd_env.models.config import STUDENT_FILE
from rlkd_env.models.storage import image_shape_of, load_student
from rlkd_env.utils.choices import ExportFormat
from rlkd_env.utils.files import read_json, write_atomically

CARD_FILE = "MODEL_CARD.md"
_TOLERANCE = 1e-4
"""Greatest difference of a logit, as a share of the largest, that another order of additions can explain."""

Network = Callable[[Tensor], Tensor]


def run_export(config: ExportConfig) -> int:
    """Write the student and its card, and check that what was written gives the student's logits."""
    folder = Path(config.folder).expanduser()
    summary = read_json(folder / SUMMARY_FILE)
    student, shape = load_student(folder, config.model), image_shape_of(folder / STUDENT_FILE)
    if hasattr(student, "roi_heads") and config.format != "state-dict":
        raise UsageError("detectors can be exported as --format state-dict alone")
    out = folder / EXPORT_FOLDER if config.out == "auto" else Path(config.out).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    name, text, write = _FORMATS[config.format]
    again = write(student, torch.rand(3, *shape), out / name)
    told = "" if hasattr(student, "roi_heads") else f", whose logits differ by {_difference(student, again, shape):.1e}"
    card = model_card(summary, shape, {name: text}, config.licence)
    write_atomically(out / CARD_FILE, card.encode())
    print(f"written: {out / name}{told}, and {CARD_FILE}")
    tell_next("rlkd", "evaluate", str(folder))
    return 0


@torch.no_grad()
def _difference(student: nn.Module, again: Network, shape: tuple[int, int, int]) -> float:
    """Return the greatest difference between the logits of a student and of what was written.

    Raises:
        UsageError: If it is more than rounding explains.
    """
    greatest = 0.0
    for count in (1, 5):  # the number of images is free
        images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
        expected = student(images)
        difference = float((again(images) - expected).abs().max())
        if not difference <= _TOLERANCE * float(expected.abs().max().clamp(min=1.0)):
            raise UsageError(f"what was written is another network: its logits differ by {difference:.2g}")
        greatest = max(greatest, difference)
    return greatest


def _as_torch_export(student: nn.Module, images: Tensor, path: Path) -> Network:
    batch = torch.export.Dim("batch")
    try:
        torch.export.save(torch.export.export(student, (images,), dynamic_shapes=({0: batch},)), str(path))
    except Exception as error:  # torch.export raises many kinds for code that it cannot follow
        raise _cannot("torch.export", error) from error
    module: nn.Module = torch.export.load(str(path)).module()
    return module


def _as_onnx(student: nn.Module, images: Tensor, path: Path) -> Network:
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise missing_package("--format onnx", "onnx", "onnxscript")
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(
                student, (images,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False
            )
    except Exception as error:  # likewise
        raise _cannot("torch.onnx.export", error) from error
    assert program is not None
    program.save(str(path), external_data=False)
    import onnx
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load(str(path)))
    (given,) = evaluator.input_names
    return lambda images: torch.from_numpy(evaluator.run(None, {given: images.numpy()})[0])


def _as_state_dict(student: nn.Module, images: Tensor, path: Path) -> Network:  # noqa: ARG001
    torch.save(student.state_dict(), path)
    student.load_state_dict(torch.load(path, weights_only=True))
    return student


def _cannot(what: str, error: Exception) -> UsageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UsageError(f"{what} cannot follow the student's code: {reason}; --format state-dict needs its weights alone")


_FORMATS: dict[ExportFormat, tuple[str, str, Callable[[nn.Module, Tensor, Path], Network]]] = {
    "torch-export": ("student.pt2", "the network, by `torch.export.load(...).module()`", _as_torch_export),
    "onnx": ("student.onnx", "the network, for any runtime of ONNX", _as_onnx),
    "state-dict": ("student.pth", "the weights, for `load_state_dict` of the same network", _as_state_dict),
}
"""The file of each form, what it holds, and what writes it and returns what can be read of it."""
