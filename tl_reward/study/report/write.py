"""How is a reproduction reported? What was run, every claim with its verdict, and every table and figure: as Markdown, as one page, and as
files.

The same matrix gives the same files, but for what `about` says of time and machine. The page needs no network: its figures are in
blocks as the dashboard's are (`show.page.blocks`), and all text is text.
"""

import html
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tl_reward.show.page.blocks import elements, figure_json, filled, front, json_block, plotly_block, policy
from tl_reward.study.findings.claims import CLAIMS, Verdict, claims_table
from tl_reward.study.matrix import Matrix, ModelEdit
from tl_reward.study.report.sentences import Part, Sentence, sentences
from tl_reward.study.table import Interval, Table, Value, markdown, shown

TITLE = "Reproduction of arXiv 2606.13209"


def write_report(matrix: Matrix, tables: Sequence[Table], claims: Sequence[Verdict], folder: str | Path, about: Mapping[str, str]) -> Path:
    """Writes report.md, report.html, and tables/NAME.csv, .md and .tex; replaces those of an earlier report.

    Args:
        about: what was run, by name, such as command, time, machine and config; the config's text is set as a block.

    Returns: the path of report.md.
    """
    folder = Path(folder)
    everything = [claims_table(list(claims)), *tables]
    assert len({table.name for table in everything}) == len(everything)
    for table in everything:
        for ending, text in (("csv", table.to_csv()), ("md", table.to_markdown()), ("tex", table.to_latex())):
            _write(folder / "tables" / f"{table.name}.{ending}", text)
    said = sentences(claims)
    _write(folder / "report.html", _page(matrix, everything, said, about))
    _write(folder / "report.md", _text(matrix, everything, said, about))
    return folder / "report.md"


def _write(path: Path, text: str) -> None:
    """All of it or nothing. A lone surrogate of a hostile text becomes a question mark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(text.encode("utf-8", "replace"))
    os.replace(scratch, path)


def heading(name: str) -> str:
    """
    >>> heading("sub-task-accuracy")
    'Sub-task accuracy'
    """
    words = name.replace("sub-task", "sub\0task").replace("-", " ").replace("\0", "-").replace("rm bench", "RM-Bench")
    return words[0].upper() + words[1:]


def _counts(matrix: Matrix) -> str:
    models = {model for model, _ in matrix.scores} | set(matrix.found)
    edits = {edit for _, edit in matrix.scores if edit != ModelEdit()}
    seeds = {model.seed for model in models}
    scores = sum(len(tasks) for tasks in matrix.scores.values())
    bases, objectives = {model.base for model in models}, {model.objective for model in models}
    return (
        f"{_many(len(models), 'reward model')} ({_many(len(bases), 'base model')}, {_many(len(objectives), 'objective')}, "
        f"{_many(len(seeds), 'seed')}), {_many(len(edits), 'edit')}, {_many(scores, 'scored sub-task')}; neurons found in "
        f"{_many(len(matrix.found), 'model')}."
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _text(matrix: Matrix, tables: Sequence[Table], said: Sequence[Sentence], about: Mapping[str, str]) -> str:
    listed = [f"{i}. {''.join(map(_linked_in_text, sentence))}" for i, sentence in enumerate(said, 1)]
    parts = [f"# {TITLE}\n", "\n".join(listed) + "\n", _counts(matrix) + "\n"]
    for name, value in about.items():
        # Indented, so that nothing in it can end the block.
        block = "\n".join(f"    {line}" for line in str(value).splitlines())
        parts.append(f"{markdown(name)}:\n\n{block}\n" if "\n" in str(value) else f"{markdown(name)}: {markdown(str(value))}\n")
    for table in tables:
        parts.append(f"## {heading(table.name)}\n\n{table.to_markdown()}")
    return "\n".join(parts)


def _linked_in_text(part: Part) -> str:
    """Markdown cannot link to a row of a table: to the table, with the rows' numbers."""
    if not part.rows:
        return markdown(part.text)
    return f"{markdown(part.text)} ([{_many(len(part.rows), 'row').partition(' ')[2]} {', '.join(map(str, part.rows))}](#claims))"


def _linked(part: Part) -> str:
    links = ", ".join(f'<a href="#claim-{row}">{row}</a>' for row in part.rows)
    return _html(part.text) + (f" ({_many(len(part.rows), 'row').partition(' ')[2]} {links})" if part.rows else "")


def _page(matrix: Matrix, tables: Sequence[Table], said: Sequence[Sentence], about: Mapping[str, str]) -> str:
    figures = {table.name: figure_json(table.figure) for table in tables if table.figure}
    listed = "\n".join(f"<li>{''.join(map(_linked, sentence))}</li>" for sentence in said)
    made = "\n".join(f"<dt>{_html(name)}</dt><dd><pre>{_html(value)}</pre></dd>" for name, value in about.items())
    blocks = {"plotly": plotly_block(), "figures": json_block(figures)}
    parts = {
        "CSP": policy(),
        "TITLE": _html(TITLE),
        "ABOUT": f'<ol class="said">\n{listed}\n</ol>\n<p>{_html(_counts(matrix))}</p>\n<dl>{made}</dl>',
        "SECTIONS": "\n".join(map(_section, tables)),
        "BLOCKS": elements(blocks),
        "SCRIPT": front("data.js"),
    }
    return filled((files("tl_reward.study.report") / "report.html").read_text(encoding="utf-8"), parts)


def _section(table: Table) -> str:
    name = _html(heading(table.name))
    layout: Any = table.figure.layout if table.figure else {}  # plotly's attributes are made as it runs, and no checker knows them all
    height = int(layout["height"] or 460) if table.figure else 0
    plot = f'<div class="plot" id="{table.name}" style="height:{height}px" role="img" aria-label="{name}"></div>' if table.figure else ""
    head = "".join(f'<th scope="col">{_html(column)}</th>' for column in table.columns)
    of_claims = table.name == CLAIMS
    body = "\n".join((f'<tr id="claim-{row[0]}">' if of_claims else "<tr>") + "".join(map(_value, row)) + "</tr>" for row in table.rows)
    grid = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>' if table.rows else ""
    return f"<section><h2>{name}</h2><p>{_html(table.caption)}</p>{plot}{grid}</section>"


def _value(value: Value) -> str:
    """A number says what its column is sorted by."""
    if isinstance(value, str):
        return f"<td>{_html(value)}</td>"
    number = float(value.estimate.value if isinstance(value, Interval) else value)
    return f'<td class="number" data-sort="{number!r}">{_html(shown(value))}</td>'


def _html(text: str) -> str:
    return html.escape(str(text), quote=True)
