"""What a panel of the page is: a figure, and what is said about it."""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, NamedTuple

from tl_reward.results.store import Results
from tl_reward.show.plots.escape import EscapedFigure


class NeuronLink(NamedTuple):
    """A set of neurons that a panel is about: a button shows them in the table, each with a link to its own page.

    Attributes:
        set: its key, as front/profile.js gives it to the table.
    """

    model: str
    set: str
    label: str


class Panel(NamedTuple):
    """Attributes:
    title: the question that the figure answers, and after it what it is asked of.
    caption: what is shown, of how many pairs, and what the sign means: two lines of a screen at most.
    notes: what not every reader needs, a paragraph each, behind a line to open. Empty ones are left out.
    section, entries: what of the run it shows.
    """

    title: str
    caption: str
    figure: EscapedFigure
    height: int = 420
    notes: tuple[str, ...] = ()
    neurons: NeuronLink | None = None
    section: str = ""
    entries: tuple[str, ...] = ()


Panels = Callable[[Results, Mapping[str, Any]], Iterator[Panel]]


def shows(section: str, *, each: bool = False) -> Callable[[Panels], Panels]:
    """Says of the panels of a function which section of the run they show, and which of its entries, where they do not say so themselves.

    Args:
        each: the function is given one entry at a time, and its panels are of that one; else they are of all.
    """

    def told(panels: Panels) -> Panels:
        @wraps(panels)
        def of(results: Results, entries: Mapping[str, Any]) -> Iterator[Panel]:
            for given in [{name: entry} for name, entry in entries.items()] if each else [entries]:
                for panel in panels(results, given):
                    yield panel._replace(section=section, entries=panel.entries or (*given,))

        return of

    return told
