"""What form has a table of the study? A caption, a header and rows: as CSV, Markdown and LaTeX, with a figure of the same
numbers."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple, TypeVar, get_origin, get_type_hints

from tl_reward.measures.intervals import FEW, Estimate, interval_text
from tl_reward.show.plots.escape import EscapedFigure


class Interval(NamedTuple):
    """An estimate as a value of a table: one text, and in CSV three columns.

    Attributes:
        signed: a difference, shown with its sign.
    """

    estimate: Estimate
    signed: bool = False

    def __str__(self) -> str:
        sign = "+" if self.signed else ""
        value, low, high, _ = self.estimate
        return interval_text(value, low, high, FEW, f"{sign}.3f")  # unmarked: what is over too few prompts is not shown at all


Value = str | int | float | Interval
Row = TypeVar("Row", bound=tuple)  # a NamedTuple of values
NONE = "–"
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "−": r"$-$",
    "→": r"$\to$",
    "×": r"$\times$",
    "∩": r"$\cap$",
    "∪": r"$\cup$",
    "≥": r"$\ge$",
} | {sign: "\\" + sign for sign in "&%$#_{}"}


@dataclass(frozen=True)
class Table:
    """A table of the study.

    Attributes:
        name: of letters and hyphens; its files are called so.
        caption: what the numbers are, and what is missing.
        rows: one value a column.
        figure: the same numbers drawn, where there are any.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    figure: EscapedFigure | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        assert re.fullmatch(r"[a-z-]+", self.name), self.name
        assert all(len(row) == len(self.columns) for row in self.rows), self.name

    def to_csv(self) -> str:
        """Numbers in full; those of an interval in three columns, of which two are called "low" and "high". Text that a spreadsheet would
        take for a formula starts with an apostrophe."""
        split = {i for row in self.rows for i, value in enumerate(row) if isinstance(value, Interval)}
        head = [part for i, name in enumerate(self.columns) for part in ([name, f"{name} low", f"{name} high"] if i in split else [name])]
        body = [[part for i, value in enumerate(row) for part in (_numbers(value) if i in split else [value])] for row in self.rows]
        text = io.StringIO()
        safe = [[_no_formula(part) if isinstance(part, str) else part for part in line] for line in [head, *body]]
        csv.writer(text, lineterminator="\n").writerows(safe)
        return text.getvalue()

    def to_markdown(self) -> str:
        """The caption, then the table, if it has rows. Text is escaped: no name in it is markup."""
        lines = [markdown(self.caption)]
        if self.rows:
            lines += ["", _line(self.columns), _line(["---"] * len(self.columns), escape=False)]
            lines += [_line([shown(value) for value in row]) for row in self.rows]
        return "\n".join(lines) + "\n"

    def to_latex(self) -> str:
        """A `tabular` in a `table`, for booktabs."""
        sides = "".join("r" if self.rows and isinstance(value, int | float) else "l" for value in (self.rows or (self.columns,))[0])
        body = [" & ".join(latex(shown(value)) for value in row) + r" \\" for row in self.rows]
        head = " & ".join(latex(name) for name in self.columns) + r" \\"
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{latex(self.caption)}}}",
                rf"\label{{tab:{self.name}}}",
                rf"\begin{{tabular}}{{{sides}}}",
                r"\toprule",
                head,
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )


def table(name: str, caption: str, row: type[Row], rows: Sequence[Row], lacks: str, figure: EscapedFigure | None = None) -> Table:
    """A table; one without rows says in its caption what the matrix lacks.

    Args:
        row: what its rows are; its fields give the header (`header`).
    """
    if not rows:
        return Table(name, f"{caption} Not computed: this run has no {lacks}.", header(row), ())
    return Table(name, caption, header(row), tuple(rows), figure)


def header(row: type[Row]) -> tuple[str, ...]:
    """The names of a row's fields, with spaces; what is no name in Python stands beside the field's type.

    >>> class Share(NamedTuple):
    ...     sub_task: Annotated[str, "sub-task"]
    ...     share_right: float
    >>> header(Share)
    ('sub-task', 'share right')
    """
    hints = get_type_hints(row, include_extras=True)
    return tuple(hint.__metadata__[0] if get_origin(hint) is Annotated else name.replace("_", " ") for name, hint in hints.items())


def interval(estimate: Estimate | None) -> Value:
    """An interval, or a dash where there is no value."""
    return NONE if estimate is None else Interval(estimate)


def signed(estimate: Estimate | None) -> Value:
    """A difference."""
    return NONE if estimate is None else Interval(estimate, signed=True)


def shown(value: Value) -> str:
    """Of fractions, three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def markdown(text: str) -> str:
    """Text as Markdown shows it, in one line: no markup, no HTML."""
    text = re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#!~$])", r"\\\1", text)


def latex(text: str) -> str:
    text = re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", text)
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _line(values: Sequence[str], *, escape: bool = True) -> str:
    return "| " + " | ".join(markdown(value) if escape else value for value in values) + " |"


def _numbers(value: Value) -> list[str | int | float]:
    """A value in a column that has intervals."""
    if isinstance(value, Interval):
        return list(value.estimate[:3])
    return ["" if value == NONE else value, "", ""]


def _no_formula(text: str) -> str:
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
