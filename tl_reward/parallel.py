"""Several processes: those that share one analysis, each a part of the batches, and those of which one at a time may touch a file.

`accelerate launch` and `torchrun` say in the environment how many processes there are. All of them have to call the same functions in the
same order; each gets the same result. With one process nothing here does anything, and torch.distributed is left alone.

torch is imported where it is used: the command line asks here who prints before it knows whether a model is needed.
"""

import atexit
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_reward.errors import InputError, first_line

if TYPE_CHECKING:
    import torch

_sections = itertools.count(1)
_room: int | None = None
_key: str | None = None  # in the store, once a process has failed in the section that is open


def count() -> int:
    """The number of processes; 1 where nobody launched several."""
    group = _initialized()
    return group.get_world_size() if group else _launched("WORLD_SIZE", 1)


def rank() -> int:
    """Which process this is, in [0, `count()`)."""
    group = _initialized()
    return group.get_rank() if group else _launched("RANK", 0)


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def on_this_machine() -> int:
    """How many of the processes share this machine's memory."""
    return _launched("LOCAL_WORLD_SIZE", 1)


def keep_to(memory: int) -> None:
    """Says how many bytes this process may take, of the device that it works on: where others work beside it, which nobody launched."""
    global _room
    _room = memory


def room() -> int | None:
    """What `keep_to` said; None where it was not called."""
    return _room


def device() -> str | None:
    """The GPU of this process, such as "cuda:1"; None where there is one process, or no GPU."""
    if count() == 1:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    return f"cuda:{_launched('LOCAL_RANK', rank()) % torch.cuda.device_count()}"


def require_one(what: str) -> None:
    """Raises InputError where several processes run: for what cannot be added up."""
    if count() > 1:
        raise InputError(f"{what} runs in one process alone, got {count()}; start it without accelerate launch or torchrun")


def deal(sizes: Sequence[int], hands: int) -> list[list[int]]:
    """Which of some batches each process takes: the largest first, each to the process with the least so far.

    >>> deal([5, 1, 3, 3], 2)
    [[0, 1], [2, 3]]
    """
    loads, dealt = [0] * hands, [[] for _ in range(hands)]
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = loads.index(min(loads))
        loads[least] += sizes[i]
        dealt[least].append(i)
    return [sorted(hand) for hand in dealt]


def add_up(*tensors: "torch.Tensor") -> None:
    """Sets each tensor to its sum over all processes, where it has the same shape."""
    if count() == 1:
        return
    import torch

    with _others(), torch.inference_mode():  # sums that were made in it can be added to in it alone
        for tensor in tensors:
            sums = tensor.to("cpu", torch.promote_types(tensor.dtype, torch.int32)).contiguous()  # gloo adds no int16
            torch.distributed.all_reduce(sums, group=_group())
            tensor.copy_(sums)


def gathered(value: Any) -> list[Any]:
    """A small JSON value of each process, in their order."""
    if count() == 1:
        return [value]
    import torch
    from torch import distributed

    text = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(count())]
    with _others():
        distributed.all_gather(sizes, torch.tensor([len(text)]), group=_group())
        longest = max(map(int, sizes))
        parts = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
        distributed.all_gather(parts, torch.nn.functional.pad(text, (0, longest - len(text))), group=_group())
    return [json.loads(bytes(part[: int(size)].tolist())) for part, size in zip(parts, sizes, strict=True)]


@contextmanager
def together() -> Iterator[None]:
    """A section in which processes work by themselves. An error in one is an error in all at its end, so that none waits for ever, nor
    adds to another one's next sum.

    Raises:
        InputError: that of another process, with its place; RuntimeError where it was some other error. InputError where another process
            is gone. (One that hangs, or whose machine loses its power, is waited for, a day at most.)
    """
    global _key
    if count() == 1:
        yield
        return
    store = _store()
    key = _key = f"failed in section {next(_sections)}"
    try:
        yield
    except _ElsewhereError:
        pass
    except Exception as error:
        with suppress(InputError), _others():  # where another one is gone, this one's own error is still what it says
            store.set(key, "")
            gathered([isinstance(error, InputError), str(error) or type(error).__name__])
        raise
    for i, failed in enumerate(gathered(None), 1):
        if failed is not None:
            raise (InputError if failed[0] else RuntimeError)(f"process {i} of {count()}: {failed[1]}")


def look_around() -> None:
    """Within `together`, ends this process' work where another one has failed; once a batch."""
    if count() > 1 and _key is not None:
        with _others():
            failed = _store().check([_key])
        if failed:
            raise _ElsewhereError


def on_first(write: Callable[[], Any]) -> None:
    """Calls a function in the first process, once all are here; the others go on when it has returned. Errors as in `together`."""
    gathered(None)
    with together():
        if is_first():
            write()


class _ElsewhereError(Exception):
    pass


@contextmanager
def _others() -> Iterator[None]:
    """What is asked of the other processes. Where one of them is killed its connections close, and all others end at once."""
    try:
        yield
    except RuntimeError as error:  # of gloo, or of the store
        raise InputError(f"another of the {count()} processes has ended, and so process {rank() + 1} does; it may have said why") from error


def _initialized() -> Any:
    """torch.distributed where its processes are joined; None where they are not, or torch was never imported."""
    distributed = sys.modules.get("torch.distributed")
    return distributed if distributed is not None and distributed.is_available() and distributed.is_initialized() else None


def _launched(name: str, default: int) -> int:
    """A launcher's variable; the default where there was none."""
    launched = all(key in os.environ for key in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))
    return int(os.environ.get(name, default)) if launched else default


@cache
def _group() -> Any:
    """Sums are on the CPU, so gloo adds them up, whatever training uses. Shares of a long pass may end hours apart."""
    import torch
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    atexit.register(_leave)
    return distributed.new_group(backend="gloo", timeout=timedelta(days=1))


def _leave() -> None:
    """Ends gloo's threads while Python still runs: one that outlives it may abort the process."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def _store() -> Any:
    from torch.distributed import distributed_c10d

    _group()
    return distributed_c10d._get_default_store()


@contextmanager
def locked(path: Path, *, busy: str = "", wait: float = -1) -> Iterator[str | None]:
    """Holds the lock of a file, which is made where it is not there, and stays. Gives None, or why there is no lock: some file systems have
    none, and in some folders nothing can be made. What is done then, the caller says.

    Args:
        busy: the message where another process still holds it after `wait` seconds; -1 waits for it, however long it takes.

    Raises:
        InputError: `busy`.
    """
    from filelock import FileLock, Timeout

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
