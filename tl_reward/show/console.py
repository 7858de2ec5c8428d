"""What is printed for a person: one console for all commands, tables that any width can show, and libraries that keep quiet beside it."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from tl_reward import parallel
from tl_reward.terminal.progress import is_quiet

# Where nobody watches (a pipe, a file): one width, whatever terminal the command was started from. COLUMNS asks for another.
WIDTH = 100
# Names of strangers reach tables: control codes but tabs and line breaks, and what turns the direction of writing.
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class _Console(Console):
    @property
    def size(self) -> ConsoleDimensions:
        if self.is_terminal or self.is_jupyter:
            return super().size
        asked = os.environ.get("COLUMNS", "")
        return ConsoleDimensions(int(asked) if asked.isdigit() and int(asked) else WIDTH, 25)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """What is drawn, without the codes by which a text would command a terminal. The console's own codes are made after this."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else _COMMANDS.sub("", text), style, control)

    def on_broken_pipe(self) -> None:
        """A reader who leaves (`| head`) is no reason to stop: files are still to be written."""
        self.quiet = True
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


console = _Console(markup=False, quiet=not parallel.is_first())  # names and paths may hold brackets


def print_table(table: Table, console: Console) -> None:
    """A table; where the console is too narrow for its words, each row as lines of "column: value", so that nothing is cut."""
    if _narrowest(table) <= console.width:
        console.print(table)
        return
    console.print(table.title or "", style="italic")
    names = [str(column.header) for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        for name, cell in zip(names, row, strict=True):
            if str(cell).strip():
                console.print(f"{name}: {' '.join(str(cell).split())}")
        console.print()


def _narrowest(table: Table) -> int:
    """The width at which no word is cut, and no cell of a column that does not wrap. (rich's own measure takes these for wrapped.)"""
    words = [
        [part for text in (column.header, *column.cells) for part in (str(text).splitlines() if column.no_wrap else str(text).split())]
        for column in table.columns
    ]
    return 1 + sum(3 + max(map(cell_len, column), default=0) for column in words)  # a blank on either side, and the lines between


def quiet() -> None:
    """transformers logs every config it reads; its progress bars are about loading weights. Bars of downloads are for a terminal."""
    if is_quiet() or not sys.stderr.isatty():
        os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    from transformers.utils import logging as hf_logging

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")  # about its own insides
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
