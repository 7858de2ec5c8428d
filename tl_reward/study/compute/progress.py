"""How far is a reproduction? A bar over all cells in a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tl_reward.study.compute.cells import Cell
from tl_reward.study.compute.plan import Planned
from tl_reward.terminal.progress import duration, is_quiet


class Display:
    """Shows cells as they start and end; the time left is in proportion to the plan's, at the pace so far."""

    def __init__(self, planned: Sequence[Planned], console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, markup=False, quiet=is_quiet())
        # A cell costs something even where it runs no token: a model is loaded, files are written.
        self.weight = {each.cell: each.tokens + 1000 for each in planned if not each.done}
        self.before, self.all, self.done = sum(each.done for each in planned), len(planned), 0
        damaged = sum(each.state == "damaged" for each in planned)
        self.damaged = f"; of {damaged} the files are not those that were written, and they are made again" if damaged else ""
        self.ran = 0
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[left]}"), TimeElapsedColumn())
        self.bar = Progress(*columns, console=self.console) if self.console.is_terminal else None
        self.task = self.bar.add_task("", total=sum(self.weight.values()), left="") if self.bar else None
        self.begin = time.monotonic()

    def __enter__(self) -> "Display":
        if self.bar:
            self.bar.start()
        self._say(f"{self.before} of {self.all} cells are done{self.damaged}", "")
        return self

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, soft_wrap=True, highlight=False)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar:
            self.bar.stop()

    def start(self, cell: Cell) -> None:
        self._say(f"[{self.before + self.done + 1}/{self.all}] {cell.kind} {cell.name}", self._left())

    def end(self, cell: Cell) -> None:
        self.done += 1
        self.ran += self.weight[cell]
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=self.ran)

    def _left(self) -> str:
        if not self.ran:
            return ""
        rest = sum(self.weight.values()) - self.ran
        return f"{duration((time.monotonic() - self.begin) * rest / self.ran)} left"

    def _say(self, text: str, left: str) -> None:
        if self.bar and self.task is not None:
            self.bar.update(self.task, description=text, left=left)
        else:
            self.console.print(text + (f" ({left})" if left else ""), soft_wrap=True, highlight=False)
