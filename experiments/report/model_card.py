"""A student described for whoever gets it: what it was made from, how, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.session.provenance import metric_of

_RECIPE = (
    "epochs",
    "batch_size",
    "optimizer",
    "learning_rate",
    "momentum",
    "weight_decay",
    "schedule",
    "method",
    "method_options",
    "augmentation",
    "train_images",
    "seed",
)
"""The settings that the card tells; the summary holds all."""


def model_card(
    summary: Mapping[str, Any], image_shape: tuple[int, int, int], files: Mapping[str, str], licence: str
) -> str:
    """Return a model card as Markdown, from the summary of a run and the files with a word on each."""
    settings, data = summary["settings"], summary["data"]
    networks = [_names(settings["teacher"]), _names(settings["teacher_model"])]
    teacher = " as ".join(name for name in networks if name != "auto") or "the data set's own"
    metric = metric_of(summary)
    rows = [
        (name, summary.get(f"{key}_val_accuracy"), summary.get(f"{key}_test_accuracy"))
        for name, key in (("teacher", "teacher"), ("this student", "student"))
    ]
    normalization = summary.get("normalization", {}).get("student", {"mean": [], "std": []})
    recipe = {name: settings[name] for name in _RECIPE if settings.get(name) not in (None, {}, [])}
    sections = {
        "": f"A network of the kind `{summary['student']}`, distilled from a larger one.",
        "Input and output": _listed(
            {
                "images": f"(N, {', '.join(map(str, image_shape))}), floating-point numbers",
                "normalisation": _constants(normalization),
                "output": "logits (N, classes); their softmax gives probabilities"
                if metric == "accuracy"
                else "what torchvision's detectors return",
            }
        ),
        "Files": _listed({f"`{name}`": text for name, text in files.items()}),
        "Data": _listed(
            {
                "data set": f"`{summary['dataset']}`",
                "images": ", ".join(f"{part} {count}" for part, count in data.items() if count is not None),
            }
        ),
        "Teacher": _listed({"network": f"`{teacher}`"}),
        "Recipe": _listed(
            {
                "temperatures from": f"`{summary['temperature_from']}`",
                **{name.replace("_", " "): f"`{value}`" for name, value in recipe.items()},
            }
        ),
        f"Results ({metric})": _table(rows),
        "Licence": f"{licence}. The licences of the data and of the teacher's weights hold beside it.",
        "Versions": ", ".join(f"{name} {version}" for name, version in summary["versions"].items()),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in sections.items())
    return f"# {summary['student']} on {summary['dataset']}\n\n{body}\n"


def _listed(entries: Mapping[str, str]) -> str:
    return "\n".join(f"* {name}: {text}" for name, text in entries.items())


def _constants(normalization: dict[str, list[float]]) -> str:
    mean, std = ([f"{value:.4g}" for value in normalization[key]] for key in ("mean", "std"))
    if not mean:
        return "none: pixels as the data give them"
    return f"pixels from 0 to 1, less the mean {', '.join(mean)}, over the standard deviation {', '.join(std)}"


def _table(rows: list[tuple[str, float | None, float | None]]) -> str:
    shown = [(name, *("–" if share is None else f"{share:.2%}" for share in shares)) for name, *shares in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (("", "validation", "test"), ("---", "---", "---"), *shown))


def _names(told: str | list[str]) -> str:
    return told if isinstance(told, str) else " and ".join(told)
