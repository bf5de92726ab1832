"""``rlkd export``: a run's student in a form that needs nothing of this package, and its model card."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Collection
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.config import ExportConfig
from experiments.next_command import tell_next
from experiments.report.model_card import model_card
from experiments.session.folder import EXPORT_FOLDER, MEMBERS_FOLDER, SUMMARY_FILE, Summary
from rlkd_env.errors import UsageError, missing_package
from rlkd_env.models.config import STUDENT_FILE
from rlkd_env.models.storage import image_shape_of, load_student
from rlkd_env.utils.choices import ExportFormat
from rlkd_env.utils.files import expanded, read_json, read_text, reading, write_atomically

CARD_FILE = "MODEL_CARD.md"
_LARGEST_CARD = 2**20
_TOLERANCE = 1e-4
"""Greatest difference of a logit, as a share of the largest, that another order of additions can explain."""

Network = Callable[[Tensor], Tensor]


def run_export(config: ExportConfig) -> int:
    """Write the student and its card, after a check that what is written gives the student's logits."""
    folder = expanded(config.folder)
    summary = read_json(folder / SUMMARY_FILE, Summary)
    if (folder / MEMBERS_FOLDER).is_dir() and not (folder / STUDENT_FILE).exists():
        raise UsageError(f"the run in {folder} keeps an ensemble, which is no single network: it cannot be exported")
    student, shape = load_student(folder, config.model), image_shape_of(folder / STUDENT_FILE)
    is_detector = hasattr(student, "roi_heads")
    if is_detector and config.format != "state-dict":
        raise UsageError("detectors can be exported as --format state-dict alone")
    out = folder / EXPORT_FOLDER if config.out == "auto" else expanded(config.out)
    if config.out == "auto" and out.is_symlink():
        raise UsageError(f"{out} is a link, which is not followed: --out says where the student goes")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, not a folder")
    name, _, encode = _FORMATS[config.format]
    if os.path.lexists(out / name) and not config.overwrite:
        raise UsageError(f"{out} holds {name} already: add --overwrite to replace it")
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of what PyTorch itself calls
        content, again = encode(student, torch.rand(3, *shape))
    told = "" if is_detector else f", whose logits differ by {_difference(student, again, shape):.1e}"
    with reading(folder / SUMMARY_FILE):
        card = partial(model_card, summary, shape, licence=config.licence)
        before, after = (card(_files_of(out, names)) for names in ([], [name]))
    write_atomically(out / name, content)
    path = out / CARD_FILE
    if path.exists() and not config.overwrite and read_text(path, _LARGEST_CARD) != before:
        print(f"written: {out / name}{told}; {CARD_FILE} is kept as it is there (--overwrite writes it anew)")
    else:
        write_atomically(path, after.encode())
        print(f"written: {out / name}{told}, and {CARD_FILE}")
    tell_next("rlkd", "evaluate", str(folder))
    return 0


def _files_of(out: Path, names: Collection[str]) -> dict[str, str]:
    """Return the files that a folder has of a student, and those of the names, with a word on each."""
    return {name: text for name, text, _ in _FORMATS.values() if name in names or (out / name).is_file()}


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


def _as_torch_export(student: nn.Module, images: Tensor) -> tuple[bytes, Network]:
    batch, content = torch.export.Dim("batch"), io.BytesIO()
    try:
        program = torch.export.export(student, (images,), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch.export raises many kinds for code that it cannot follow
        raise _cannot("torch.export", error) from error
    torch.export.save(program, content)
    module: nn.Module = torch.export.load(io.BytesIO(content.getvalue())).module()
    return content.getvalue(), module


def _as_onnx(student: nn.Module, images: Tensor) -> tuple[bytes, Network]:
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
    import onnx
    from onnx.reference import ReferenceEvaluator

    content: bytes = program.model_proto.SerializeToString()
    evaluator = ReferenceEvaluator(onnx.load_from_string(content))
    (given,) = evaluator.input_names
    return content, lambda images: torch.from_numpy(evaluator.run(None, {given: images.numpy()})[0])


def _as_state_dict(student: nn.Module, images: Tensor) -> tuple[bytes, Network]:  # noqa: ARG001
    content = io.BytesIO()
    torch.save(student.state_dict(), content)
    student.load_state_dict(torch.load(io.BytesIO(content.getvalue()), weights_only=True))
    return content.getvalue(), student


def _cannot(what: str, error: Exception) -> UsageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UsageError(f"{what} cannot follow the student's code: {reason}; --format state-dict needs its weights alone")


_FORMATS: dict[ExportFormat, tuple[str, str, Callable[[nn.Module, Tensor], tuple[bytes, Network]]]] = {
    "torch-export": ("student.pt2", "the network, by `torch.export.load(...).module()`", _as_torch_export),
    "onnx": ("student.onnx", "the network, for any runtime of ONNX", _as_onnx),
    "state-dict": ("student.pth", "the weights, for `load_state_dict` of the same network", _as_state_dict),
}
"""The file of each form, what it holds, and what returns its content and the network that can be read of that."""
