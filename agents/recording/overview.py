"""What TensorBoard shows of a run beside its curves: settings, final figures, and which charts come first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

STUDENT_FIGURES = {
    "student/test_accuracy": "student_test_accuracy",
    "student/last_test_accuracy": "student_last_test_accuracy",
    "student/best_validation_accuracy": "student_val_accuracy",
    "student/mean_temperature": "mean_temperature",
}
"""The figures of a finished run, by the tags that they have here, under their names in ``summary.json``."""
_LAYOUT = {
    "1 how it goes": {
        "return": ["Multiline", ["rollout/ep_rew_mean"]],
        "validation and training accuracy": ["Multiline", ["student/validation_accuracy", "student/training_accuracy"]],
        "temperature: mean, median, 5 and 95 %": [
            "Multiline",
            ["temperature/mean", "temperature/quantile_0.50", "temperature/quantile_0.05", "temperature/quantile_0.95"],
        ],
    },
    "2 rewards": {
        "of an epoch": ["Multiline", ["reward/epoch"]],
        "spread over the instances": ["Multiline", ["reward/spread"]],
        "share of rewards that was predicted": ["Multiline", ["reward/decomposition_r2"]],
    },
    "3 the agent": {
        "loss": ["Multiline", ["train/loss$", "train/actor_loss", "train/critic_loss", "train/value_loss"]],
        "exploration": ["Multiline", ["train/std", "train/ent_coef$"]],
        "KL divergence and clipping": ["Multiline", ["train/approx_kl", "train/clip_fraction"]],
    },
}
"""The page *custom scalars*: what matters first. TensorBoard reads tags as regular expressions."""


def write_settings(writer: SummaryWriter, settings: Mapping[str, Any], main: Mapping[str, Any]) -> None:
    """Write what is known when a run begins: all settings as text, the main ones as hyperparameters, and the layout."""
    rows = "\n".join(f"| {name} | `{_plain(value)}` |" for name, value in sorted(settings.items()))
    writer.add_text("config", f"| option | value |\n| --- | --- |\n{rows}", 0)
    writer.add_custom_scalars(_LAYOUT)
    for summary in hparams(_values(main), dict.fromkeys(STUDENT_FIGURES, 0.0))[:2]:
        writer._get_file_writer().add_summary(summary)


def write_figures(folder: Path, summary: Mapping[str, Any], main: Mapping[str, Any]) -> None:
    """Write the final figures of a run into its folder, and that it is finished."""
    with SummaryWriter(str(folder)) as writer:
        for tag, name in STUDENT_FIGURES.items():
            if summary.get(name) is not None:
                writer.add_scalar(tag, summary[name], summary["steps"])
        writer._get_file_writer().add_summary(hparams(_values(main), dict.fromkeys(STUDENT_FIGURES, 0.0))[2])


def _values(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)
