"""What TensorBoard shows beside the curves."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter

from agents.recording.overview import write_figures, write_settings


def test_a_run_has_its_settings_and_figures_as_hyperparameters(tmp_path: Path) -> None:
    settings = {"seed": 3, "rule": None, "features": ["progress"]}
    with SummaryWriter(str(tmp_path)) as writer:
        write_settings(writer, settings, {"seed": 3, "rule": None})
    summary = {"steps": 480, "student_test_accuracy": 0.75, "student_val_accuracy": None}
    write_figures(tmp_path, summary, {"seed": 3, "rule": None})
    events = EventAccumulator(str(tmp_path)).Reload()
    told = events.summary_metadata
    started = HParamsPluginData.FromString(told["_hparams_/session_start_info"].plugin_data.content)
    hyperparameters = started.session_start_info.hparams
    assert hyperparameters["seed"].number_value == 3
    assert hyperparameters["rule"].string_value == "None"
    experiment = HParamsPluginData.FromString(told["_hparams_/experiment"].plugin_data.content)
    shown = {one.name.tag for one in experiment.experiment.metric_infos}
    assert "student/test_accuracy" in shown
    assert "_hparams_/session_end_info" in told
    assert [(event.step, event.value) for event in events.Scalars("student/test_accuracy")] == [(480, 0.75)]
    assert "student/best_validation_accuracy" not in events.Tags()["scalars"]
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| features | `['progress']` |" in text
    assert events.Tensors("custom_scalars__config__")
