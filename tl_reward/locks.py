"""One process at a time, by a lock on a file: it goes with the process that holds it, however that ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tl_reward.errors import InputError, first_line


@contextmanager
def locked(path: Path, *, busy: str = "", wait: float = -1) -> Iterator[str | None]:
    """Holds the lock of a file, which is made where it is not there, and stays. Gives None, or why there is no lock: some file systems have
    none, and in some folders nothing can be made. What is done then, the caller says.

    Args:
        busy: the message where another process still holds it after `wait` seconds; -1 waits for it, however long it takes.

    Raises:
        InputError: `busy`.
    """
    lock, why = FileLock(path, timeout=wait), None
    try:
        lock.acquire()
    except Timeout:
        raise InputError(busy) from None
    except (OSError, NotImplementedError) as error:  # earlier versions of filelock raise the second for a file system without locks
        why = first_line(error)
    try:
        yield why
    finally:
        lock.release()
