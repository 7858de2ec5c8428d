"""A run folder on disk: its name leads to a whole run at any moment, and nothing outside of it is read or written.

A save first writes its files into a folder of its own inside the run folder, `.saving-…`. One rename makes that `.saved`: from then on it
is the run, and readers take a file from there before they take it from the run folder. Then the files are moved up one by one, and
`.saved` goes. A save that is killed before the rename leaves the old run, one that is killed after it leaves the new one, and the next
save finishes what is left. None of this needs more of an operating system than a rename, so it is the same on Windows. One process
writes at a time, behind a lock, where the file system has locks.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from tl_reward.errors import InputError
from tl_reward.parallel import locked

JSON, TENSORS = "results.json", "tensors.safetensors"
_PAGE = ("dashboard.html", "dashboard.data")
_REPAIR = ("model", "upper-mark", "repair.json")  # what a repair puts beside its run, where the last of them stands
_SAVED, _SAVING, _LOCK = ".saved", ".saving-", ".lock"
# What our writers leave when they are killed, and what desktops and network file systems put into any folder.
_OURS, _OURS_BEGIN = (_SAVED, _LOCK), (_SAVING, ".dashboard-")
_OTHERS, _OTHERS_BEGIN = (".DS_Store", "Thumbs.db", "desktop.ini", ".directory"), ("._", ".nfs", ".fuse_hidden")
_WAIT = 60  # seconds for another process that writes the same run
_PROBE = bytes(65536)

Read = TypeVar("Read")


def named(path: str | Path) -> str:
    """A path as messages have it: in one line.

    >>> print(named("runs/mine"), named("runs/a\\nb"))
    runs/mine 'runs/a\\nb'
    """
    text = str(path)
    return text if text.isprintable() else repr(text)


def check_run_folder(folder: str | Path, *, overwrite: bool = False) -> None:
    """Says no before an hour of work, not after it: raises InputError where `Results.save` would.

    An empty folder may be written to, and one that holds only what a killed save left there, or a desktop's own files.

    Raises:
        InputError: a run is there and `overwrite` is off; the folder holds something else than a run; it cannot be made (a parent is a
            file, the name is too long, the path is a link to nothing); nothing can be written there (no permission, a full disk).
    """
    folder = Path(folder)
    try:
        there = _deepest(folder)
        if there == folder.absolute():
            _check_contents(folder, overwrite)
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(_PROBE)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{named(folder)} cannot be written: {_reason(error)}") from None


def _deepest(folder: Path) -> Path:
    """The deepest folder of a path that is there. Raises OSError for a name that the file system does not take."""
    path, missing = folder.absolute(), []
    while not path.exists():
        if path.is_symlink():
            raise InputError(f"{named(folder)} cannot be made: {named(path)} is a link to {named(os.readlink(path))}, which is not there")
        missing.append(path.name)
        path = path.parent
    if missing and not path.is_dir():
        raise InputError(f"{named(folder)} cannot be made: {named(path)} is a file")
    for name in missing:
        with suppress(FileNotFoundError):
            os.lstat(path / name)  # too long or not allowed: said although nothing of that name is there
    return path


def _check_contents(folder: Path, overwrite: bool) -> None:
    contents = {item.name: item for item in folder.iterdir()} if folder.is_dir() else {folder.name: folder}
    held = {name: item for name, item in contents.items() if not _is_litter(name) or name == _SAVED}
    if held and not overwrite:
        raise InputError(f"{named(folder)} exists; choose another folder, or replace it with overwrite=True")
    known = {JSON, TENSORS, *_PAGE, _SAVED} if folder.is_dir() else set()
    if _REPAIR[-1] in held and known & {JSON, _SAVED} & {*held}:
        known |= {*_REPAIR}
    foreign = [name for name, item in held.items() if name not in known or (name in (JSON, TENSORS) and item.is_dir())]
    if foreign:
        names = ", ".join(named(name) for name in sorted(foreign)[:3])
        raise InputError(f"{named(folder)} is not overwritten: it holds {names}, which no run does")


def _is_litter(name: str) -> bool:
    return name in (*_OURS, *_OTHERS) or name.startswith((*_OURS_BEGIN, *_OTHERS_BEGIN))


def write_run(folder: Path, write: Callable[[Path], None], *, overwrite: bool) -> None:
    """Lets `write` put the two files of a run into a folder that it is given, and makes that the run, all of it or nothing.

    Raises:
        InputError: as `check_run_folder`, and where writing fails; what was there before is there still.
    """
    check_run_folder(folder, overwrite=overwrite)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder) as alone:
            check_run_folder(folder, overwrite=overwrite)  # another process may have been faster
            _finish(folder, alone)
            if alone:
                _remove(item for item in folder.iterdir() if item.name.startswith(_OURS_BEGIN))
            scratch = folder / f"{_SAVING}{uuid.uuid4().hex[:12]}"
            scratch.mkdir()
            try:
                write(scratch)
                scratch.rename(folder / _SAVED)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            with suppress(OSError):  # it is the run already; Windows does not replace a file that is being read
                _finish(folder, alone)
    except OSError as error:
        raise InputError(f"{named(folder)} cannot be written: {_reason(error)}") from None
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()  # where nothing was written


def _finish(folder: Path, alone: bool) -> None:
    """Moves the files of `.saved` to their places. Steps that were done before, or that another process does, are left out."""
    saved = folder / _SAVED
    if saved.is_symlink():
        saved.unlink()
    if not saved.exists():
        return
    for name in (TENSORS, JSON):
        with suppress(FileNotFoundError):
            os.replace(saved / name, folder / name)
    _remove(folder / name for name in _PAGE)  # of the run before
    if (folder / _REPAIR[-1]).is_file():
        _remove(folder / name for name in _REPAIR)  # a model that the new run says nothing of
    with suppress(OSError):
        saved.rmdir()
    if alone:
        _remove([saved])


def _remove(paths: "Iterator[Path] | list[Path]") -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Behind a lock; gives whether there is one."""
    path = folder / _LOCK
    with locked(path, busy=f"{named(folder)}: another process has been writing it for {_WAIT} s", wait=_WAIT) as why:
        try:
            yield why is None
        finally:
            if why is None:
                with suppress(OSError):
                    path.unlink()  # while it is ours: who waits for it sees that it is gone, and makes one of its own
    if why is None and os.name == "nt":  # which deletes no file that is open
        with suppress(OSError):
            path.unlink()


def read_run(folder: Path, read: Callable[[Path, Path], Read]) -> Read:
    """What `read` makes of the JSON and the tensors of one save, though another process saves meanwhile.

    Raises:
        InputError: there is no run, or its files are links out of the folder.
    """
    for _ in range(20):
        paths = _file(folder, JSON), _file(folder, TENSORS)
        before = _state(paths[0])
        if before is None:
            # In this order: what is not in `.saved` any more has been moved up.
            if any(path.is_file() for path in (folder / _SAVED / JSON, folder / JSON)):
                continue
            why = f"{JSON} is missing" if folder.exists() else "there is no such folder"
            raise InputError(f"{named(folder)}: no run folder ({why})")
        try:
            for path in paths:
                _check_file(folder, path)
            result = read(*paths)
        except Exception:
            if paths == (_file(folder, JSON), _file(folder, TENSORS)) and _state(paths[0]) == before:
                raise
            continue  # it was moved or replaced meanwhile
        if _state(_file(folder, JSON)) == before:
            return result
    raise InputError(f"{named(folder)}: the run changes all the time; read it when no process writes it")


def last_written(folder: Path) -> int | None:
    """When the run of a folder was written, in nanoseconds; None where there is no run. It may lie in `.saved` still."""
    state = _state(_file(folder, JSON))
    return state[1] if state else None


def _check_file(folder: Path, path: Path) -> None:
    """Raises InputError for what is not to be opened: a link out of the folder, and a pipe, which would be waited for."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{named(folder)}: {path.name} is a link to {named(path.resolve())}, which is not in the folder")
    if path.exists() and not path.is_file():
        raise InputError(f"{named(folder)}: run is damaged ({path.name} is no file)")


def _file(folder: Path, name: str) -> Path:
    saved = folder / _SAVED / name
    return saved if saved.exists() else folder / name


def _state(path: Path) -> tuple[int, int, int] | None:
    """Tells one file from the next one of its name; None where there is no file."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size) if path.is_file() else None


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
