"""How far is a long computation? A bar in a terminal, plain lines in a log file, and nothing where a command was told to be quiet."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from tl_reward import parallel

if TYPE_CHECKING:
    from tqdm import tqdm

# In a log file a line comes no sooner than so many seconds after the last, and when such a share more is done, or so many have passed.
SOONEST, SHARE, LATEST = 30.0, 0.1, 300.0
_ROOM = 60  # columns that a bar and its numbers take beside its label
_quiet = False


@contextmanager
def hushed(quiet: bool) -> Iterator[None]:
    """Within it no progress is shown, nor what else says `is_quiet` first."""
    global _quiet
    before, _quiet = _quiet, quiet
    try:
        yield
    finally:
        _quiet = before


def is_quiet() -> bool:
    return _quiet


class Progress:
    """Shown on standard error, by the first of several processes. In a file or a pipe: a line that says how much there is to do; where that
    takes long, lines with what is done and the time left at the pace so far. A reader who has left is no reason to stop."""

    def __init__(self, label: str | None, total: int, unit: str, *, done: int = 0) -> None:
        """
        Args:
            label: what is computed; None shows nothing.
            unit: of `total`, in the plural, such as tokens.
            done: of `total`, by an earlier process.
        """
        shown = label is not None and not _quiet and parallel.is_first()
        self.label, self.total, self.unit, self.done = label or "", total, unit, done
        self._begin = self._said_at = time.monotonic()
        self._before = self._said_of = done
        self._lines = shown and not sys.stderr.isatty()
        self._bar = self._drawn() if shown and not self._lines else None

    def __enter__(self) -> "Progress":
        if self._lines:
            self._say(f"{self.total:,} {self.unit}" + (f", of which {self.done:,} are done" if self.done else ""))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._lines and error is None and self._said_at > self._begin:
            self._say(f"done, after {duration(time.monotonic() - self._begin)}")

    def add(self, amount: int, note: str = "") -> None:
        """So much more is done.

        Args:
            note: what else is known by now, such as a loss.
        """
        self.done += amount
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(amount)
        now = time.monotonic()
        waited, more = now - self._said_at, self.done - self._said_of
        if self._lines and self.done < self.total and waited >= SOONEST and (more >= SHARE * self.total or waited >= LATEST):
            left = (now - self._begin) * (self.total - self.done) / (self.done - self._before)
            said = f"{self.done:,} of {self.total:,} {self.unit} ({self.done / self.total:.0%}), {duration(left)} left"
            self._said_at, self._said_of = now, self.done
            self._say(f"{said}; {note}" if note else said)

    def _say(self, text: str) -> None:
        with suppress(OSError, ValueError):
            print(f"{self.label}: {text}", file=sys.stderr, flush=True)

    def _drawn(self) -> "tqdm[NoReturn]":
        """In a narrow terminal the share and the time left come first, so that the label is what is cut."""
        from tqdm import tqdm

        columns = shutil.get_terminal_size().columns
        narrow = columns < len(self.label) + _ROOM
        return tqdm(
            total=self.total, initial=self.done, unit=f" {self.unit}", unit_scale=True, ncols=columns,
            desc=self.label[: max(columns - 24, 1)] if narrow else self.label,
            bar_format="{percentage:3.0f}% {remaining} left, {desc}" if narrow else None,
        )  # fmt: skip


def duration(seconds: float | None) -> str:
    """
    >>> duration(40), duration(5000), duration(None)
    ('about 40 s', 'about 1 h 23 min', 'time unknown')
    """
    if seconds is None:
        return "time unknown"
    if seconds < 100:
        return f"about {seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"about {hours:,} h {minutes} min" if hours else f"about {minutes} min"
