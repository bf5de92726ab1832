"""``rlkd report``: what the page says and shows, what it refuses, and how it looks in a browser."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_detections import tell_of_detection, write_example
from matplotlib.image import imread

from experiments.cli import main
from experiments.report.comparison.figures import draw_accuracies, draw_differences
from experiments.report.comparison.page import comparison_page
from experiments.report.comparison.reading import describe
from experiments.report.comparison.records import ComparisonRecord
from experiments.report.run.figures import PARTS, draw_accuracy_over_epochs, draw_temperature_over_epochs, draw_time
from experiments.report.run.instance_figures import draw_reward_against_temperature, draw_temperature_by_class
from experiments.report.run.page import run_page
from experiments.report.run.records import RunRecord
from experiments.session.folder import clear_folder
from rlkd_env.utils.files import write_tensors

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CREDIT = {
    "uniform": {"pearson": None, "spearman": None, "cost_ratio": 1.05},
    "return_decomposition": {"pearson": 0.06, "spearman": 0.04, "cost_ratio": 1.34},
    "gradient": {"pearson": 0.96, "spearman": 0.95, "cost_ratio": 1.64},
    "counterfactual": {"pearson": 1.0, "spearman": 1.0, "cost_ratio": 2.42},
}
RUN_FIGURES = {
    "accuracy_over_epochs",
    "accuracy_over_time",
    "temperature_over_epochs",
    "temperature_against_confidence",
    "temperature_against_margin",
    "temperature_by_class",
    "reward_against_temperature",
    "credit",
    "time",
}
COMPARISON_FIGURES = {"differences_digits", "cost_digits", "accuracy_digits", "temperature_digits"}


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as rlkd distill leaves it."""
    out = tmp_path_factory.mktemp("runs") / "ppo"
    options = ["--epochs", "20", "--warmup-epochs", "2", "--student-alone", "--no-progress", "--device", "cpu"]
    assert main(["distill", "--agent", "ppo", "--out", str(out), *options]) == 0
    (out / "credit.json").write_text(json.dumps(CREDIT))
    return out


@pytest.fixture
def run(real_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(real_run, tmp_path / "run"))


def estimate(mean: float, half: float | None = None) -> dict[str, Any]:
    interval = None if half is None else [mean - half, mean + half]
    return {"mean": mean, "count": 4, "interval": interval, "bootstrap_interval": interval}


ARMS = {
    "T=4": (0.9412, 0.0, 1.0),
    "better": (0.9475, 0.0063, 1.21),
    "same": (0.9401, -0.0011, 1.07),
    "worse": (0.9, -0.0412, 0.98),
}
"""Mean accuracy, difference to T=4, and cost of every arm; every interval is ± 0.4 points."""


def history(level: float, temperature: float, epochs: int = 12) -> dict[str, Any]:
    """A history whose validation accuracy goes up to a level."""
    rows = [
        {
            "epoch": epoch,
            "step": 4 * epoch,
            "seconds": 0.1 * epoch,
            "validation_accuracy": level - 0.5 / epoch,
            "validation_loss": 1.0 / epoch,
            "training_accuracy": level,
            "temperature_mean": temperature,
            "temperature_quantiles": [temperature] * 5,
            "reward": 0.01,
        }
        for epoch in range(1, epochs + 1)
    ]
    return {"version": 1, "epochs": rows}


def comparison_content() -> dict[str, Any]:
    """What comparison.json holds after four seeds of four arms."""
    of_student = {
        "best_fixed": "T=4",
        "arms": {
            name: {
                "mean": estimate(mean, 0.005),
                "difference": estimate(difference, 0.004 if name != "T=4" else 0.0),
                "regret": estimate(difference, 0.004 if name != "T=4" else 0.0),
                "probability_of_improvement": 0.75,
            }
            for name, (mean, difference, _) in ARMS.items()
        },
    }
    runs = {
        name: {
            "count": 4,
            "diverged": 0,
            "failed": 0,
            "seconds": 9.0 * cost,
            "cost_ratio": cost,
            "agent_share": 0.1,
            "mean_temperature": 4.0,
        }
        for name, (*_, cost) in ARMS.items()
    }
    rows = [
        {"task": "digits", "arm": arm, "seed": seed, "error": "", "folder": f"runs/digits/{arm}/seed{seed}"}
        for arm in ARMS
        for seed in range(4)
    ]
    return {
        "version": 1,
        "settings": {"epochs": 12},
        "tasks": {"digits": {}},
        "arms": {name: {"rule": "fixed"} for name in ARMS},
        "baseline": "T=4",
        "planned_runs": 16,
        "runs": rows,
        "statistics": {"digits": {"baseline": "T=4", "runs": runs, "last": of_student, "chosen": of_student}},
        "versions": {"torch": torch.__version__},
    }


@pytest.fixture(scope="module")
def real_comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison's folder."""
    folder, content = tmp_path_factory.mktemp("comparisons") / "digits", comparison_content()
    for row in content["runs"]:
        run = folder / row["folder"]
        run.mkdir(parents=True)
        made = history(ARMS[row["arm"]][0] + 0.001 * row["seed"], 4.0)
        (run / "history.json").write_text(json.dumps(made))
    (folder / "comparison.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def comparison(real_comparison: Path, tmp_path: Path) -> Path:
    """A copy of the comparison that a test may change."""
    return Path(shutil.copytree(real_comparison, tmp_path / "comparison"))


@pytest.fixture(scope="module")
def reports(real_run: Path, real_comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with the reports of all kinds; the run and the comparison stay as they are."""
    detection = Path(shutil.copytree(real_run, tmp_path_factory.mktemp("runs") / "detection"))
    tell_of_detection(detection)
    write_example(detection)
    folders = {}
    for kind, folder in {"run": real_run, "comparison": real_comparison, "detection": detection}.items():
        folders[kind] = tmp_path_factory.mktemp("report")
        assert main(["report", str(folder), "--out", str(folders[kind])]) == 0
    return folders


class Reader(HTMLParser):
    """Collects what a page loads, its text, and the attributes of its elements by tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self._is_text = True
        self.attributes: dict[str, list[dict[str, str | None]]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.setdefault(tag, []).append(dict(attrs))
        self._is_text = tag not in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._is_text = True

    def handle_data(self, data: str) -> None:
        if self._is_text:
            self.text.append(data)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def shown(html: str) -> str:
    """The text of a page."""
    return " ".join(" ".join(Reader(html).text).split())


def words_of(folder: Path, **files: Path) -> str:
    """What a report would say, without its figures."""
    is_run = (folder / "config.json").exists()
    page = run_page(RunRecord.read(folder, **files)) if is_run else comparison_page(ComparisonRecord.read(folder))
    return shown(replace(page, sections=[replace(one, drawings=[]) for one in page.sections]).html()) + " ".join(
        drawing.caption for drawing in page.drawings
    )


def test_a_runs_page_tells_the_summarys_numbers_and_shows_every_figure(
    real_run: Path, reports: dict[str, Path]
) -> None:
    html = (reports["run"] / "report.html").read_text()
    summary, text = json.loads((real_run / "summary.json").read_text()), shown(html)
    for name in (
        "student_last_test_accuracy",
        "student_test_accuracy",
        "teacher_test_accuracy",
        "student_alone_last_test_accuracy",
    ):
        assert f"{100 * summary[name]:.2f} %" in text
    assert f"{summary['seconds']:.1f} s" in text
    assert f"of {summary['data']['test']} test images" in text
    for name, value in json.loads((real_run / "config.json").read_text()).items():
        assert name in text, value
    pictures = {path.stem: path for path in (reports["run"] / "report").iterdir()}
    assert pictures.keys() == RUN_FIGURES
    for path in pictures.values():
        assert np.ptp(imread(path)[..., :3]) > 0.5  # it is not blank
    assert html.count("<svg") == len(RUN_FIGURES)


@pytest.mark.parametrize("kind", ["run", "comparison", "detection"])
def test_a_page_needs_nothing_but_itself(kind: str, reports: dict[str, Path]) -> None:
    html = (reports[kind] / "report.html").read_text()
    assert "http:" not in html
    assert "https:" not in html
    reader = Reader(html)
    assert not {"link", "img", "iframe", "object"} & reader.attributes.keys()
    assert all("src" not in attributes for attributes in reader.attributes["script"])
    pictures = reader.attributes.pop("image", [])
    assert all((picture["href"] or "").startswith("data:image/png;base64,") for picture in pictures)
    assert len(pictures) == (8 if kind == "detection" else 0)  # two images, four figures each
    links = [attributes.get("href", "#") for tag in reader.attributes.values() for attributes in tag]
    assert all(link and link.startswith("#") for link in links)
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html


@pytest.mark.parametrize("kind", ["run", "comparison", "detection"])
def test_figures_take_their_colours_from_the_page_and_are_told_in_words(kind: str, reports: dict[str, Path]) -> None:
    html = (reports[kind] / "report.html").read_text()
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    for svg in drawings:
        if "_proposals-" not in svg:  # whose colours are temperatures
            assert not re.search(r"#[0-9a-fA-F]{6}", svg)
        assert "var(--ink)" in svg or "var(--paper)" in svg
    identifiers = re.findall(r' id="([^"]*)"', html)
    assert len(identifiers) == len(set(identifiers))
    references = {name for svg in drawings for name in re.findall(r'(?:href="#|url\(#)([^")]*)', svg)}
    assert references <= set(identifiers)
    labels = [one["aria-label"] or "" for one in Reader(html).attributes["div"] if one.get("role") == "img"]
    assert len(labels) == len(drawings)
    assert all(len(label) > 40 for label in labels)


def test_the_figures_draw_what_was_recorded(run: Path) -> None:
    record = RunRecord.read(run)
    epochs = json.loads((run / "history.json").read_text())["epochs"]
    lines = {line.get_label(): line for line in drawn(draw_accuracy_over_epochs(record)).lines}
    assert list(lines["validation"].get_xdata()) == list(range(1, 21))
    assert list(lines["validation"].get_ydata()) == pytest.approx([100 * row["validation_accuracy"] for row in epochs])
    assert lines["test, last epoch"].get_ydata()[0] == record.percent("student_last_test_accuracy")
    assert lines["test, last epoch"].get_xdata()[0] == 20
    median = next(line for line in drawn(draw_temperature_over_epochs(record)).lines if line.get_label() == "median")
    assert list(median.get_ydata()) == pytest.approx([row["temperature_quantiles"][2] for row in epochs])
    seconds = [bar.get_width() for bar in drawn(draw_time(record)).patches]
    assert seconds == pytest.approx([record.figure(f"{part}_seconds") for part in PARTS])


def drawn(drawing: Any) -> Any:
    """The axes of a drawing."""
    assert drawing is not None
    return drawing.figure.axes[0]


def test_rewards_are_drawn_against_temperatures(run: Path) -> None:
    generator = np.random.default_rng(0)
    temperature = generator.uniform(1, 9, 4000)
    trace = {name: torch.zeros(4000) for name in ("epoch", "step", "index", "teacher_confidence", "student_margin")}
    trace |= {"label": torch.arange(4000.0) % 30, "temperature": torch.from_numpy(temperature + np.arange(4000) % 30)}
    trace["reward"] = -trace["temperature"]
    trace["step"] = torch.arange(4000.0)
    write_tensors(run / "trace.safetensors", trace)
    record = RunRecord.read(run)
    drawing = draw_reward_against_temperature(record)
    container = drawn(drawing).containers[0]
    middle, mean = container[0].get_data()
    assert list(mean) == pytest.approx(list(-middle), rel=0.1)
    assert "is −1.00" in drawing.caption
    assert "All intervals overlap" not in drawing.caption
    by_class = draw_temperature_by_class(record)  # 30 of them, in order of their median
    (median,) = drawn(by_class).lines
    assert len(median.get_ydata()) == 30
    assert list(median.get_ydata()) == sorted(median.get_ydata())
    assert "(class 0)" in by_class.caption
    assert "(class 29)" in by_class.caption


def test_a_run_that_broke_off_is_shown_as_far_as_it_came(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "summary.json").unlink()
    kept = json.loads((run / "history.json").read_text())["epochs"][:7]
    change(run / "history.json", epochs=kept)
    assert main(["report", str(run)]) == 0
    assert "This run has not finished: what is shown ends with epoch 7 of 20" in shown(
        (run / "report.html").read_text()
    )
    assert "has not finished" in capsys.readouterr().out
    assert "time" not in {path.stem for path in (run / "report").glob("*.png")}
    for name in ("history.json", "trace.safetensors", "credit.json"):
        (run / name).unlink()
    assert main(["report", str(run)]) == 0
    html = (run / "report.html").read_text()
    assert "nothing has been recorded yet" in shown(html)
    assert "<svg" not in html
    assert not list((run / "report").glob("*.png"))  # those of the earlier report are gone


def test_a_run_that_diverged_is_told_as_such(run: Path) -> None:
    change(run / "summary.json", diverged=True, student_test_accuracy=None, student_last_test_accuracy=None)
    rows = json.loads((run / "history.json").read_text())["epochs"]
    change(run / "history.json", epochs=[row | {"validation_accuracy": None, "validation_loss": None} for row in rows])
    trace = {name: torch.from_numpy(values) for name, values in RunRecord.read(run).trace.items()}
    half = len(trace["step"]) * 3 // 4
    for name in ("temperature", "student_margin"):
        trace[name][half:] = math.nan
    write_tensors(run / "trace.safetensors", trace)
    words = words_of(run)
    assert "This run diverged at update 80: " in words
    assert " nan" not in words.lower()


def test_a_run_at_one_temperature_is_shown(run: Path) -> None:
    change(run / "config.json", rule="fixed")
    trace = RunRecord.read(run).trace
    same = {name: torch.from_numpy(values) for name, values in trace.items()}
    same |= {"temperature": torch.full_like(same["step"], 4.0), "reward": torch.full_like(same["step"], math.nan)}
    write_tensors(run / "trace.safetensors", same)
    rows = json.loads((run / "history.json").read_text())["epochs"]
    change(run / "history.json", epochs=[row | {"temperature_quantiles": [4.0] * 5} for row in rows])
    words = words_of(run)
    assert "All instances have the temperature 4" in words
    assert "There are no instance rewards" in words


def test_what_users_write_is_text_not_markup(run: Path, comparison: Path) -> None:
    change(run / "config.json", dataset="<script>alert(1)</script>", method="a&b")
    html = run_page(RunRecord.read(run)).html()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;, a&amp;b" in html
    content = (comparison / "comparison.json").read_text()
    (comparison / "comparison.json").write_text(content.replace('"better"', '"<b>$x$&"'))
    html = comparison_page(ComparisonRecord.read(comparison)).html()
    assert "<b>" not in html
    assert html.count("&lt;b&gt;$x$&amp;") > 3  # in the table, the words and the figures


def test_a_credit_measurement_is_taken_from_anywhere(run: Path, tmp_path: Path) -> None:
    (run / "credit.json").unlink()
    assert "Credit quality is not shown" in words_of(run)
    (tmp_path / "credit").mkdir()
    (tmp_path / "credit" / "credit.json").write_text(json.dumps(CREDIT))
    for option in (tmp_path / "credit", tmp_path / "credit" / "credit.json"):
        text = words_of(run, credit=option)
        assert "return_decomposition 0.06" in text
        assert "gradient 0.96" in text


def test_the_command_writes_where_it_is_told_and_leaves_the_run_alone(real_run: Path, reports: dict[str, Path]) -> None:
    assert sorted(path.name for path in reports["run"].iterdir()) == ["report", "report.html"]
    assert not (real_run / "report.html").exists()


def test_a_run_that_is_replaced_takes_its_report_along(run: Path) -> None:
    (run / "report.html").write_text("")
    (run / "report").mkdir()
    clear_folder(run)
    assert sorted(path.name for path in run.iterdir()) == ["credit.json"]


def test_a_comparisons_page_tells_the_files_statistics(reports: dict[str, Path]) -> None:
    html = (reports["comparison"] / "report.html").read_text()
    text = shown(html)
    for name, (mean, difference, cost) in ARMS.items():
        assert name in text
        assert f"{100 * mean:.2f} ({100 * (mean - 0.005):.2f} to {100 * (mean + 0.005):.2f})" in text
        assert f"{cost:.2f} ×" in text
        if name != "T=4":
            words = f"{100 * difference:+.2f} ({100 * (difference - 0.004):+.2f} to {100 * (difference + 0.004):+.2f})"
            assert words.replace("-", "−") in text
    assert "16 of 16 runs" in text
    assert {path.stem for path in (reports["comparison"] / "report").iterdir()} == COMPARISON_FIGURES
    heads = [head["data-key"] for head in Reader(html).attributes["th"] if "data-key" in head]
    assert heads == ["better", "T=4", "same", "worse"]


def test_the_reading_calls_better_only_what_is_clear_of_zero(comparison: Path) -> None:
    (task,) = ComparisonRecord.read(comparison).tasks
    words = describe(task)
    assert "Better, with an interval clear of zero: better +0.63 (+0.23 to +1.03)." in words
    assert "Worse, with an interval clear of zero: worse −4.12 (−4.52 to −3.72)." in words
    assert "None of the others can be told from T=4: same." in words
    content = comparison_content()
    for of_arm in content["statistics"]["digits"]["last"]["arms"].values():
        of_arm["difference"] = estimate(0.001, 0.004)
    (comparison / "comparison.json").write_text(json.dumps(content))
    words = describe(ComparisonRecord.read(comparison).tasks[0])
    assert "No arm can be told from T=4: better, same, worse." in words
    assert "Better" not in words


def test_intervals_and_curves_are_drawn_where_the_numbers_say(comparison: Path) -> None:
    (task,) = ComparisonRecord.read(comparison).tasks
    axes = drawn(draw_differences(task))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["better", "same", "worse"]
    bars = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2.4]
    expected = [[100 * (ARMS[name][1] - 0.004), 100 * (ARMS[name][1] + 0.004)] for name in ("better", "same", "worse")]
    assert np.array(bars) == pytest.approx(np.array(expected))
    curve = next(line for line in drawn(draw_accuracies(task)).lines if line.get_label() == "better")
    mean = 100 * (ARMS["better"][0] + 0.0015 - 0.5 / np.arange(1, 13))
    assert list(curve.get_ydata()) == pytest.approx(list(mean))


def test_an_unfinished_comparison_is_shown_as_far_as_it_came(comparison: Path) -> None:
    content = comparison_content()
    content["runs"] = [row for row in content["runs"] if row["seed"] == 0]
    content["runs"][0]["error"] = "out of memory"
    figures = content["statistics"]["digits"]["last"]["arms"]["same"]
    for name in ("mean", "difference", "regret"):
        figures[name] = estimate(figures[name]["mean"])
    content["statistics"]["digits"]["last"]["arms"]["worse"] |= {"mean": None, "difference": None, "regret": None}
    (comparison / "comparison.json").write_text(json.dumps(content))
    text = words_of(comparison)
    assert "12 of 16 runs are missing" in text
    assert "A run failed: digits/T=4/seed0: out of memory" in text
    assert "Too few runs to say anything: same, worse." in text
    assert " nan" not in text.lower()
    content["statistics"] = {}
    (comparison / "comparison.json").write_text(json.dumps(content))
    assert "nothing can be compared yet" in words_of(comparison)


def test_many_arms_stay_readable(comparison: Path) -> None:
    content = comparison_content()
    statistics = content["statistics"]["digits"]
    for number in range(20):
        name = f"ppo-calibrator_{number}"
        statistics["runs"][name] = statistics["runs"]["same"]
        statistics["last"]["arms"][name] = statistics["last"]["arms"]["same"]
        content["runs"] += [row | {"arm": name} for row in content["runs"][:4]]
    (comparison / "comparison.json").write_text(json.dumps(content))
    assert "Grey: the 18 other arms." in words_of(comparison)


def break_file(name: str, content: str) -> Any:
    return lambda folder: (folder / name).write_text(content)


BAD_RUNS = {
    "no history": (break_file("history.json", "[]"), "history.json is damaged"),
    "half a history": (break_file("history.json", '{"version": 1, "epo'), "history.json cannot be read as JSON"),
    "another version": (break_file("history.json", '{"version": 9, "epochs": []}'), "no history of version 1"),
    "an epoch of text": (break_file("history.json", '{"version": 1, "epochs": ["a"]}'), "an epoch lacks a number"),
    "a summary of text": (break_file("summary.json", '{"seconds": "long"}'), "'long' is no number"),
    "no config": (break_file("config.json", "7"), "config.json is damaged"),
    "no tensors": (break_file("trace.safetensors", "x"), "trace.safetensors is damaged or no safetensors file"),
    "another credit": (break_file("credit.json", '{"gradient": 3}'), "no measurement by rlkd credit"),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_damaged_runs_get_one_line_and_no_report(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, message = BAD_RUNS[name]
    damage(run)
    assert_refused(run, message, capsys)


def test_traces_of_unequal_columns_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tensors(run / "trace.safetensors", {"step": torch.zeros(3), "reward": torch.zeros(4)})
    assert_refused(run, "it needs equally long columns", capsys)


def assert_refused(folder: Path, message: str, capsys: pytest.CaptureFixture[str], *options: str) -> None:
    capsys.readouterr()
    assert main(["report", str(folder), *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (folder / "report.html").exists()
    assert not (folder / "report").exists()


def test_bad_comparisons_and_folders_are_refused(
    comparison: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(comparison, "--credit belongs to the report of a run", capsys, "--credit", "x")
    content = comparison_content()
    del content["statistics"]["digits"]["last"]["arms"]["same"]["difference"]
    for damaged, message in (
        (content, "comparison.json is damaged: KeyError 'difference'"),
        (comparison_content() | {"version": 2}, "no comparison of version 1"),
        (comparison_content() | {"runs": [3]}, "comparison.json is damaged"),
        ([], "no comparison of version 1"),
    ):
        (comparison / "comparison.json").write_text(json.dumps(damaged))
        assert_refused(comparison, message, capsys)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert_refused(tmp_path / "empty", "holds neither a run (config.json) nor a comparison (comparison.json)", capsys)
    assert_refused(tmp_path / "nowhere", "does not exist", capsys)
    assert_refused(tmp_path / "file", "is no folder", capsys)


def browse(page: Path, *options: str) -> str:
    """Open a page in a browser without a window; return what it prints."""
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("kind", ["run", "comparison", "detection"])
def test_a_page_fits_a_phone_and_knows_the_dark(kind: str, reports: dict[str, Path], tmp_path: Path) -> None:
    html = (reports[kind] / "report.html").read_text()
    probe = """<script>
      const heads = [...document.querySelectorAll("th button")];
      if (heads.length) heads[1].click();
      if (heads.length) heads[1].click();
      const sizes = [...document.querySelectorAll("figure text")].map((text) => {
        const svg = text.ownerSVGElement;
        const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
        return parseFloat(getComputedStyle(text).fontSize) * scale;
      });
      const first = document.querySelector("tbody th");
      parent.document.body.textContent = JSON.stringify({
        width: innerWidth, content: document.documentElement.scrollWidth, smallest: Math.min(...sizes),
        heads: heads.length, first: first.textContent,
      });
    </script></body>"""
    page = tmp_path / "probe.html"
    framed = escape(html.replace("</body>", probe))  # a window cannot be as narrow as a phone, but a frame can
    page.write_text(f'<body><iframe width="390" height="844" style="border: 0" srcdoc="{framed}"></iframe></body>')
    told = browse(page, f"--user-data-dir={tmp_path}", "--dump-dom")
    found = json.loads(re.search(r"<body>\s*(\{.*\})\s*</body>", told, flags=re.DOTALL)[1])  # type: ignore[index]
    assert found["width"] == 390
    assert found["content"] <= 390
    assert found["smallest"] >= 9.0  # pixels
    assert found["heads"] == (10 if kind == "comparison" else 0)
    assert found["first"] == ("worse" if kind == "comparison" else "teacher")  # sorted by the mean, upwards
    brightness = {}
    for scheme, number in (("dark", 0), ("light", 1)):
        picture = tmp_path / f"{scheme}.png"
        options = [f"--blink-settings=preferredColorScheme={number}", f"--screenshot={picture}"]
        browse(reports[kind] / "report.html", f"--user-data-dir={tmp_path}", *options, "--window-size=390,844")
        pixels = imread(picture)[..., :3]
        assert pixels.shape[1] == 390
        assert np.ptp(pixels) > 0.5
        brightness[scheme] = float(pixels[0, 0].mean())
    assert brightness["dark"] < 0.2
    assert brightness["light"] > 0.9
