"""What may be replaced in a folder, what replacing takes along, and that only one works there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from experiments.session.folder import (
    RUN,
    TEACHER,
    TRAINING,
    FolderKind,
    check_folder,
    clear_folder,
    kind_of,
    locked,
)
from rlkd_env.errors import UsageError

KINDS = [RUN, TRAINING, TEACHER]


def fill(folder: Path, kind: FolderKind) -> None:
    """Make everything that a command leaves, and something of the user's own."""
    for name in (*kind.files, "own.txt"):
        (folder / name).write_text("")
    for name in kind.folders:
        (folder / name / "inside").mkdir(parents=True)
        (folder / name / "inside" / "file").write_text("")
    (folder / "config.json").write_text(json.dumps({kind.option: "something"}))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_that_is_replaced_takes_its_report_along(run: Path) -> None:
    (run / "report.html").write_text("")
    (run / "report").mkdir()
    clear_folder(run)
    assert names(run) == [".lock", "credit.json"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_folder_tells_its_kind_and_is_cleared_of_nothing_else(kind: FolderKind, tmp_path: Path) -> None:
    assert kind_of(tmp_path) is None
    fill(tmp_path, kind)
    assert kind_of(tmp_path) is kind
    clear_folder(tmp_path, kind)
    assert names(tmp_path) == ["own.txt"]


@pytest.mark.parametrize("other", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_only_the_same_kind_is_replaced(kind: FolderKind, other: FolderKind, tmp_path: Path) -> None:
    fill(tmp_path, other)
    before = names(tmp_path)
    if kind is other:
        check_folder(tmp_path, overwrite=True, resume=False, kind=kind)
        return
    for act in (
        lambda: check_folder(tmp_path, overwrite=True, resume=False, kind=kind),
        lambda: check_folder(tmp_path, overwrite=False, resume=True, kind=kind),
        lambda: clear_folder(tmp_path, kind),
    ):
        with pytest.raises(UsageError, match=f"holds a {other.name}, and that is not replaced by a {kind.name}"):
            act()
    assert names(tmp_path) == before


def test_files_that_no_command_has_made_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "mine.txt").write_text("")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="holds report, which no command of rlkd has made"):
            check_folder(tmp_path, overwrite, resume=False)
    with pytest.raises(UsageError, match="no command of rlkd"):
        clear_folder(tmp_path)
    assert (tmp_path / "report" / "mine.txt").exists()


@pytest.mark.parametrize("name", ["tensorboard", "checkpoint", "student.safetensors", "summary.json"])
def test_of_a_link_only_the_link_goes(name: str, tmp_path: Path) -> None:
    folder, outside = tmp_path / "run", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "precious").write_text("")
    fill(folder, RUN)
    path = folder / name
    if path.is_dir():
        (path / "inside" / "file").unlink()
        (path / "inside").rmdir()
        path.rmdir()
        path.symlink_to(outside)
    else:
        path.unlink()
        path.symlink_to(outside / "precious")
    clear_folder(folder)
    assert names(folder) == ["own.txt"]
    assert names(outside) == ["precious"]


def test_curves_go_with_the_run_whose_they_are(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1.host.2.0").write_text("")
    with pytest.raises(UsageError, match="no command of rlkd"):
        clear_folder(tmp_path)
    fill(tmp_path, RUN)
    clear_folder(tmp_path)
    assert names(tmp_path) == ["own.txt"]


def test_nothing_is_removed_where_something_is_in_the_way(tmp_path: Path) -> None:
    fill(tmp_path, RUN)
    (tmp_path / "student.safetensors").unlink()
    (tmp_path / "student.safetensors").mkdir()
    before = names(tmp_path)
    with pytest.raises(UsageError, match="is not what a run has there"):
        clear_folder(tmp_path)
    assert names(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_nothing_is_removed_where_not_all_can_be(tmp_path: Path) -> None:
    fill(tmp_path, RUN)
    inside = tmp_path / "members" / "inside"
    inside.chmod(0o555)
    before = names(tmp_path)
    with pytest.raises(UsageError, match="may not be written: nothing was removed"):
        clear_folder(tmp_path)
    assert names(tmp_path) == before
    inside.chmod(0o755)


def test_only_one_works_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with locked(folder):
        with pytest.raises(UsageError, match="another rlkd works in"), locked(folder):
            pass
        with pytest.raises(UsageError, match="another rlkd works in"):
            check_folder(folder, overwrite=False, resume=False)
        check_folder(folder, overwrite=False, resume=False, holds_lock=True)
    with locked(folder):
        pass
    check_folder(folder, overwrite=False, resume=False)
