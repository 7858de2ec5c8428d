"""Tables with a caption, as CSV, Markdown and LaTeX, and with the figure that shows the same numbers."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go

from tl_reward.scores import Estimate

Value = str | int | float
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
        rows: plain values, one a column; intervals are text.
        figure: the same numbers drawn, where there are any.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    figure: go.Figure | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        assert re.fullmatch(r"[a-z-]+", self.name), self.name
        assert all(len(row) == len(self.columns) for row in self.rows), self.name

    def to_csv(self) -> str:
        """Numbers in full. Text that a spreadsheet would take for a formula starts with an apostrophe."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([_no_formula(name) for name in self.columns])
        writer.writerows([[_no_formula(value) if isinstance(value, str) else value for value in row] for row in self.rows])
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
        sides = "".join("r" if self.rows and not isinstance(value, str) else "l" for value in (self.rows or (self.columns,))[0])
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


def table(
    name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Value]], lacks: str, figure: go.Figure | None = None
) -> Table:
    """A table; one without rows says in its caption what the matrix lacks."""
    if not rows:
        return Table(name, f"{caption} Not computed: the matrix has no {lacks}.", tuple(columns), ())
    return Table(name, caption, tuple(columns), tuple(map(tuple, rows)), figure)


def interval(estimate: Estimate | None) -> str:
    """An interval, or a dash where there is no value."""
    return "–" if estimate is None else str(estimate)


def signed(estimate: Estimate | None) -> str:
    """A difference."""
    return "–" if estimate is None else f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


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


def _no_formula(text: str) -> str:
    interval = re.fullmatch(r"[+-][\d.]+ \[[+-]?[\d.]+, [+-]?[\d.]+\]", text)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") and not interval else text
