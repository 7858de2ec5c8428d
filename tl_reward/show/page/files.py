"""How does a page get on the disk? All of it or nothing, whatever is killed, and whoever else writes it at the same time.

A page that is too large for one file has its data in a folder beside it, `NAME.data`. Each writing has a folder of its own in there: until
the page itself is replaced, in one step, the earlier one and its data are whole. What is written at all is first written there, so a kill
leaves nothing beside the page but that folder, and whoever writes the page next clears it.
"""

import hashlib
import os
import platform
import re
import secrets
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tl_reward.errors import InputError

_HOST = hashlib.sha256(platform.node().encode("utf-8", "surrogateescape")).hexdigest()[:8]
# Of a writing: its process, its machine, and which one it is.
_WRITING = re.compile(r"(\d{1,10})-([0-9a-f]{8})-[0-9a-f]{8}")
_NAMED = re.compile(rb'data-folder="[^"]*?/(\d{1,10}-[0-9a-f]{8}-[0-9a-f]{8})"')
_threads = threading.Lock()  # of one process, one writes at a time


def data_folder(path: Path) -> Path:
    return path.with_name(f"{path.stem}.data")


def check_page(path: Path, *, overwrite: bool) -> None:
    """Raises InputError where a page cannot be written, or replaces what it should not."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it, such as {path / 'dashboard.html'}")
    data = data_folder(path)
    if path == data:
        raise InputError(f"{path} is what a page's data folder is called; choose another name, such as {path.with_suffix('.html').name}")
    if data.exists() and not (data.is_dir() and all(_WRITING.fullmatch(item.name) or item.suffix == ".js" for item in data.iterdir())):
        raise InputError(f"{data} is in the way: it is no page's data folder")
    published = path.exists() or (data.is_dir() and any(item.suffix == ".js" for item in data.iterdir()))
    if published and not overwrite:
        raise InputError(f"{path if path.exists() else data} exists; choose another file, or replace it with overwrite=True")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A folder for the page's data. Where the block ends well, its file "page" becomes the page. What that does not read goes."""
    data = data_folder(path)
    with _threads:
        own = data / f"{os.getpid()}-{_HOST}-{secrets.token_hex(4)}"
        _make(own)
        before = _named_by(path)
        try:
            yield own
            before = _named_by(path)
            os.replace(own / "page", path)
        finally:
            with suppress(OSError):
                _clear(data, keep=_named_by(path), gone=(before, own.name))
                data.rmdir()  # fails where the page's data are in it, or others write there


def _make(folder: Path) -> None:
    """Makes a folder in one that another writer may just be removing."""
    while True:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            folder.mkdir()
            return


def _clear(data: Path, *, keep: str | None, gone: Collection[str | None]) -> None:
    """Removes from a data folder what the page does not read, and nobody is writing."""
    for item in data.iterdir():
        if item.name != keep and (item.name in gone or _left_behind(item)):
            _remove(item)


def _named_by(path: Path) -> str | None:
    """The writing whose data the page on the disk reads; None where it holds them itself."""
    with suppress(OSError), path.open("rb") as file:
        found = _NAMED.search(file.read(4096))
        return found[1].decode() if found else None
    return None


def _left_behind(item: Path) -> bool:
    """Whether the process is gone that wrote it, or of an earlier version of this package, whose files were not in folders. What another
    machine writes is left alone: its processes cannot be seen from here."""
    found = _WRITING.fullmatch(item.name)
    if not found:
        return item.suffix == ".js"
    if found[2] != _HOST:
        return False
    if int(found[1]) == os.getpid():
        return True  # one thread of this process writes, the one that asks
    with suppress(OSError, psutil.Error):
        return psutil.Process(int(found[1])).create_time() > item.stat().st_mtime + 1  # the number has gone to another process
    return True


def _remove(item: Path) -> None:
    if item.is_dir() and not item.is_symlink():
        shutil.rmtree(item, ignore_errors=True)
    else:
        item.unlink(missing_ok=True)


def write_blocks(folder: Path, blocks: Mapping[str, str]) -> None:
    for name, block in blocks.items():
        (folder / f"{name}.js").write_text(f'tlRewardBlock("{name}", "{block}");\n', encoding="ascii")
