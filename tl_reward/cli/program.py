"""The command as a program: how it ends when it is stopped, and text that any terminal can show. It imports nothing heavy."""

import codecs
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from tl_reward.errors import as_options

_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
# For terminals without these signs; others become escapes.
_PLAIN = str.maketrans(
    {"–": "-", "—": "-", "·": "|", "…": "...", "×": "x", "’": "'"}
    | dict.fromkeys("─━═", "-")
    | dict.fromkeys("│┃║", "|")
    | dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼┏┓┗┛┡┩╇╞╡╪", "+")
)


@contextmanager
def as_program(name: str) -> Iterator[None]:
    """What runs inside ends in one line where it is stopped: Ctrl-C with status 130, SIGTERM with 143. A reader who leaves (`| head`) is no
    error. What a terminal cannot show is written in signs that it can; a warning is one line, without the source that gives it."""
    stopped: list[signal.Signals] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(signal.Signals(number))
        signal.signal(number, signal.SIG_DFL)  # the second time at once
        if _imports(frame):  # packages catch whatever comes up there, and nothing is left half done
            _end_now(name, stopped[0])
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(_CODES[stopped[0]])

    def unraisable(about: Any) -> None:
        if stopped:  # it came up where Python raises nothing on
            _end_now(name, stopped[0])
        sys.__unraisablehook__(about)

    with _handling(stop), _readable(sys.stdout), _readable(sys.stderr), _plain_warnings():
        before, sys.unraisablehook = sys.unraisablehook, unraisable
        try:
            yield
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_stdout()
            raise SystemExit(128 + 13) from None  # as a program that SIGPIPE ends
        except BaseException as error:
            number = stopped[0] if stopped else signal.SIGINT if isinstance(error, KeyboardInterrupt) else None
            if number is None:
                raise
            if not isinstance(error, SystemExit) or number == signal.SIGTERM:  # else it has said so itself
                _say(name, number)
            raise SystemExit(_CODES[number]) from None
        finally:
            sys.unraisablehook = before


@contextmanager
def _handling(stop: Any) -> Iterator[None]:
    """The signals' handlers, where this is the main thread; one that is ignored (nohup) stays so."""
    before = {}
    with suppress(ValueError):
        for number in _CODES:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _readable(stream: Any) -> Iterator[None]:
    codecs.register_error("tl_reward", _in_plain_signs)
    errors, change = getattr(stream, "errors", None), getattr(stream, "reconfigure", None)
    if change is None:
        yield
        return
    change(errors="tl_reward")
    try:
        yield
    finally:
        with suppress(BrokenPipeError):
            change(errors=errors)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        with suppress(OSError, ValueError):
            print(f"warning: {as_options(' '.join(str(message).split()))}", file=sys.stderr)

    before, warnings.showwarning = warnings.showwarning, show
    try:
        yield
    finally:
        warnings.showwarning = before


def _in_plain_signs(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _say(name: str, number: signal.Signals) -> None:
    with suppress(OSError, ValueError):
        print(f"{name}: stopped{'' if number == signal.SIGINT else ' (terminated)'}", file=sys.stderr, flush=True)


def _end_now(name: str, number: signal.Signals) -> None:
    _say(name, number)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(_CODES[number])


def _forget_stdout() -> None:
    """Nobody reads it any more: what is left in its buffer must not fail when Python ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
