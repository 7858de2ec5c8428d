"""What a panel of the page is: a figure, and what is said about it."""

from typing import NamedTuple

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
    """

    title: str
    caption: str
    figure: EscapedFigure
    height: int = 420
    notes: tuple[str, ...] = ()
    neurons: NeuronLink | None = None
