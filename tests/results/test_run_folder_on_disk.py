"""Where a run can be written is said before an hour of work, as `save` would say it; and a save that is cut short anywhere leaves a run."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tl_reward.errors import InputError
from tl_reward.results import store
from tl_reward.results.disk.folder import check_run_folder
from tl_reward.results.store import Results

OLD, NEW = Results(provenance={"seed": 1}), Results(provenance={"seed": 2})
NEW.tensors["study/a/x"] = torch.ones(3)  # of a size that tells it from the old one's
FILES = ["results.json", "tensors.safetensors"]


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def refused(folder: str | Path, says: str, *, overwrite: bool = False) -> None:
    """By the check and by the save alike, in one line."""
    for attempt in (check_run_folder, NEW.save):
        with pytest.raises(InputError, match=says) as said:
            attempt(folder, overwrite=overwrite)
        assert len(str(said.value).splitlines()) == 1


# Said at once


def test_what_no_file_system_takes(tmp_path: Path):
    refused(tmp_path / "new" / ("x" * 300), "cannot be written: File name too long")
    refused(tmp_path / "a\x00b", "cannot be written: .*null")
    (tmp_path / "file").write_text("mine")
    refused(tmp_path / "file" / "deep" / "run", "cannot be made: .*file is a file")
    refused(tmp_path / "file", "not overwritten: it holds file", overwrite=True)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["x" * 250, "a\nb", "a 'b' \"c\"", "-", "é"])
def test_what_it_takes_is_written(name: str, tmp_path: Path):
    check_run_folder(tmp_path / name)
    for _ in range(2):
        NEW.save(tmp_path / name, overwrite=True)
        assert Results.load(tmp_path / name).provenance == {"seed": 2} and names(tmp_path) == [name]
    refused(tmp_path / name, "exists")


def test_a_folder_where_nobody_may_write():
    if not Path("/proc/self").exists():
        pytest.skip("no folder of that kind here")
    refused("/proc/tl_reward/run", "cannot be written")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_full_disk_and_the_like(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(**_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tempfile, "TemporaryFile", fails)
    refused(tmp_path / "run", f"run cannot be written: {os.strerror(code)}")
    assert names(tmp_path) == []


def test_a_disk_that_becomes_full_while_a_run_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    OLD.save(tmp_path / "run")

    def fails(tensors: Any, path: Path) -> None:
        path.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(store, "save_file", fails)
        with pytest.raises(InputError, match="No space left"):
            NEW.save(tmp_path / "run", overwrite=True)
        with pytest.raises(InputError, match="No space left"):
            NEW.save(tmp_path / "deep" / "new")
    assert Results.load(tmp_path / "run").provenance == {"seed": 1}
    assert names(tmp_path) == ["run"] and names(tmp_path / "run") == FILES
    assert Results.load(NEW.save(tmp_path / "other")).provenance == {"seed": 2}  # they are in memory still


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links(tmp_path: Path):
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    refused(tmp_path / "nowhere", "nowhere is a link to .*gone, which is not there", overwrite=True)
    OLD.save(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    NEW.save(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink() and Results.load(tmp_path / "real").provenance == {"seed": 2}


def test_the_folder_in_which_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    refused(".", r"\. is not overwritten: it holds notes.txt", overwrite=True)
    (tmp_path / "notes.txt").unlink()
    NEW.save(".")
    NEW.save(".", overwrite=True)
    assert names(tmp_path) == FILES


# What others leave


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._results.json", ".lock", ".saving-1", ".dashboard-1"])
def test_litter_is_nothing_foreign(name: str, tmp_path: Path):
    OLD.save(tmp_path / "run")
    (tmp_path / "run" / name).mkdir() if "-1" in name else (tmp_path / "run" / name).write_bytes(b"x")
    NEW.save(tmp_path / "run", overwrite=True)
    assert names(tmp_path / "run") == sorted([*FILES, *([] if name[:3] in (".lo", ".sa", ".da") else [name])])
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_bytes(b"x")
    NEW.save(tmp_path / "run")  # nothing but litter is as nothing at all


def test_a_file_of_the_users_own_is_foreign(tmp_path: Path):
    OLD.save(tmp_path / "run")
    (tmp_path / "run" / ".notes").write_text("mine")
    refused(tmp_path / "run", "it holds .notes", overwrite=True)


@pytest.mark.skipif(os.name == "nt", reason="modes are of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_modes_are_what_the_umask_says(mask: int, tmp_path: Path):
    before = os.umask(mask)
    try:
        folder = NEW.save(tmp_path / "run")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask
    assert {stat.S_IMODE(item.stat().st_mode) for item in folder.iterdir()} == {0o666 & ~mask}


# Cut short: each moment of a save at which its process may be killed


def killed_while_writing(run: Path, new: Path) -> None:
    (run / ".saving-1").mkdir()
    shutil.copy(new / FILES[0], run / ".saving-1")


def killed_before_the_rename(run: Path, new: Path) -> None:
    shutil.copytree(new, run / ".saving-1")


def killed_after_the_rename(run: Path, new: Path) -> None:
    shutil.copytree(new, run / ".saved")
    (run / "dashboard.html").write_text("of the old run")


def killed_between_the_files(run: Path, new: Path) -> None:
    killed_after_the_rename(run, new)
    os.replace(run / ".saved" / FILES[1], run / FILES[1])


def killed_before_the_page_is_gone(run: Path, new: Path) -> None:
    killed_between_the_files(run, new)
    os.replace(run / ".saved" / FILES[0], run / FILES[0])


@pytest.mark.parametrize("there", [True, False], ids=["a run before", "none before"])
@pytest.mark.parametrize(
    ("moment", "seed"),
    [
        (killed_while_writing, 1),
        (killed_before_the_rename, 1),
        (killed_after_the_rename, 2),
        (killed_between_the_files, 2),
        (killed_before_the_page_is_gone, 2),
    ],
)
def test_a_save_that_is_killed(moment: Callable[[Path, Path], None], seed: int, there: bool, tmp_path: Path):
    new, run = NEW.save(tmp_path / "new"), tmp_path / "run"
    if there:
        OLD.save(run)
    else:
        run.mkdir()
    moment(run, new)
    if there or seed == 2:
        found = Results.load(run)
        assert found.provenance == {"seed": seed} and len(found.tensors) == seed - 1
        refused(run, "exists")
    else:
        with pytest.raises(InputError, match="no run folder"):
            Results.load(run)
        check_run_folder(run)
    Results(provenance={"seed": 3}).save(run, overwrite=True)
    assert Results.load(run).provenance == {"seed": 3} and names(run) == FILES


def test_a_file_that_is_moved_while_it_is_looked_at_is_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A reader that comes while a save moves its files up: it asks whether a file is there, and then whether that is a plain file."""
    run = NEW.save(tmp_path / "run")
    saved = run / ".saved"
    saved.mkdir()
    for name in FILES:
        os.replace(run / name, saved / name)
    there = Path.is_file

    def moved_before(path: Path) -> bool:
        if path == saved / "tensors.safetensors" and path.exists():
            for name in FILES:
                os.replace(saved / name, run / name)
            saved.rmdir()
        return there(path)

    monkeypatch.setattr(Path, "is_file", moved_before)
    assert Results.load(run).provenance == {"seed": 2} and names(run) == FILES
