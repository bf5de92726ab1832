"""The pictures of README and documentation, in the style of the pages of ``rlkd report``, for light and dark paper.

python docs/pictures.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from agents.learned.loading import load_policy
from experiments.commands.train_agent.policy_figure import draw_policy
from experiments.report.comparison.loading import ComparisonRecord
from experiments.report.comparison.regrets_figure import draw_regrets
from experiments.report.run.figures import draw_credit_quality
from experiments.report.style import dark_paper
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig

DOCS = ROOT / "docs"
DARK = DOCS / "dark"
"""Where the pictures for dark paper lie, under their names on light paper."""


def regrets(path: Path) -> None:
    """Every method on every task."""
    drawing = draw_regrets(ComparisonRecord.read(DOCS / "results" / "all"))
    assert drawing is not None
    path.write_bytes(drawing.png())


def credit(path: Path) -> None:
    """The quality of credit."""
    drawing = draw_credit_quality(json.loads((DOCS / "results" / "credit" / "credit.json").read_text()), None)
    assert drawing is not None
    path.write_bytes(drawing.png())


def policy(path: Path) -> None:
    """The policy of the package, on Digits."""
    draw_policy(load_policy("pretrained"), build_run(RunConfig.from_keywords(device="cpu")), 0, path)


PICTURES: dict[str, Callable[[Path], None]] = {
    "results/all/regrets.png": regrets,
    "credit.png": credit,
    "policy.png": policy,
}


if __name__ == "__main__":
    DARK.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        for path, paper in ((DOCS / name, nullcontext()), (DARK / Path(name).name, dark_paper())):
            with paper:
                draw(path)
            print(f"written: {path.relative_to(ROOT)}")
