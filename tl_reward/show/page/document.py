"""A run as one HTML file that needs no network and no model: its data in blocks (`blocks.py`), and what draws them (front/)."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_reward.errors import InputError, first_line, shown
from tl_reward.results.store import Results
from tl_reward.show.neuron_columns import Column, columns_of, exact_effects
from tl_reward.show.notes import notes_of
from tl_reward.show.page import neuron_details
from tl_reward.show.page.blocks import array_block, elements, figure_json, filled, front, halves, json_block, plotly_block, policy
from tl_reward.show.page.files import check_page, write_blocks, writing
from tl_reward.show.page.found import found_on_page
from tl_reward.show.page.lacking import asked_for, missing_of
from tl_reward.show.page.panel import Panel
from tl_reward.show.page.panels import panels_of

# Says what the manifest holds, for whoever reads a page with another program.
MANIFEST_FORMAT = 1
# Beyond this a page becomes a folder: the file, and its data beside it, read when they are asked for.
LARGEST_FILE = 30_000_000
SCRIPTS = (
    "data", "state", "draw", "sections", "own_set", "map", "compare", "tension", "profile", "table", "neuron", "texts", "findings",
    "live", "main",
)  # fmt: skip


def write_page(results: Results, path: str | Path, *, title: str = "Reward model neurons", overwrite: bool = False) -> Path:
    """Writes the page, all of it or nothing. One of more than 30 MB keeps its data in a folder beside it, `NAME.data`.

    Raises:
        InputError: the file exists and `overwrite` is off, or cannot be written; a folder of that name holds something else; the run has
            nothing to show, or more than a page can.
    """
    if not isinstance(results, Results):
        raise InputError(f"results must be Results, got {shown(results)}: tl_reward.Results.load reads a run folder")
    path = Path(path)
    try:
        check_page(path, overwrite=overwrite)
        blocks = _blocks(results, title)
        whole = sum(map(len, blocks.values())) <= LARGEST_FILE
        with writing(path) as folder:
            if not whole:
                write_blocks(folder, blocks)
            page = _document(blocks if whole else {}, title, live=False, folder=None if whole else f"{folder.parent.name}/{folder.name}")
            (folder / "page").write_bytes(page.encode("utf-8", "replace"))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or first_line(error)}") from None
    return path


def build_page(results: Results, *, title: str = "Reward model neurons", live: bool = False) -> str:
    """The page as text, whatever its size.

    Args:
        live: it is served beside a model (`tl_reward.show.live.server`), which it asks for rewards.
    """
    return _document(_blocks(results, title, live=live), title, live=live, folder=None)


def _document(blocks: Mapping[str, str], title: str, *, live: bool, folder: str | None) -> str:
    parts = {
        "CSP": policy(scripts="'self' file:" if folder else "", connect="'self'" if live else "'none'"),
        "TITLE": html.escape(title),
        "FOLDER": html.escape(folder or ""),
        "STYLE": front("page.css"),
        "BLOCKS": elements(blocks),
        "SCRIPT": "\n".join(front(f"{name}.js") for name in SCRIPTS),
    }
    return filled(front("page.html"), parts)


def _blocks(results: Results, title: str, *, live: bool = False) -> dict[str, str]:
    columns, panels, found = columns_of(results), list(panels_of(results)), list(neuron_details.details(results))
    if not columns and not panels and not found:
        raise InputError("this run has nothing to show")
    shapes = {column.model: column.values.shape for column in columns} | {each.entry["model"]: each.entry["shape"] for each in found}
    shapes |= {model: shape for model, shape in neuron_details.shapes_of_edited(results).items() if model not in shapes}
    blocks: dict[str, str] = {"plotly": plotly_block()}
    manifest = {
        "format": MANIFEST_FORMAT,
        "title": title,
        "live": live,
        "provenance": _provenance(results),
        "notes": list(notes_of(results)),
        "models": [_model(results, name, shape) for name, shape in shapes.items()],
        "columns": [_column(column, i, blocks) for i, column in enumerate(columns)],
        "tensions": neuron_details.tensions(results),
        "overlaps": neuron_details.overlaps(results),
        "repairs": neuron_details.repairs(results),
        "exact": exact_effects(results),
        "details": [each.entry for each in found],
        "missing": missing_of(results, next(iter(shapes), None)),
        "panels": [_panel(panel) for panel in panels],
    }
    manifest["found"] = found_on_page(results, columns, panels, manifest)
    for each in found:
        blocks |= each.blocks
    blocks["panels"] = json_block([figure_json(panel.figure) for panel in panels])
    return {"manifest": json_block(manifest)} | blocks


def _model(results: Results, name: str, shape: Sequence[int]) -> dict[str, Any]:
    """`command` is the model as a command takes it. `rewards` are of each data set that it was scored on, both sides together: how many,
    their mean, and the sum of their squared distances from it."""
    rewards: list[dict[str, Any]] = []
    for key, entry in results.sections.get("scores", {}).items():
        if entry["model"] != name:
            continue
        values = np.concatenate([results.tensor("scores", key, side).numpy() for side in ("chosen", "rejected")]).astype(np.float64)
        if len(values) and np.isfinite(values).all():
            told = {"count": len(values), "mean": float(values.mean()), "squares": float(((values - values.mean()) ** 2).sum())}
            rewards.append({"dataset": entry["dataset"]} | told)
    layers, width = map(int, shape)
    return {"name": name, "layers": layers, "width": width, "command": " ".join(asked_for(results, name)), "rewards": rewards}


def _panel(panel: Panel) -> dict[str, Any]:
    """All of it but its figure."""
    told = {"title": panel.title, "caption": panel.caption, "height": panel.height, "notes": list(filter(None, panel.notes))}
    return told | ({"neurons": panel.neurons._asdict()} if panel.neurons else {})


def _column(column: Column, number: int, blocks: dict[str, str]) -> dict[str, Any]:
    """Says what a column is, and puts its numbers into blocks."""
    entry: dict[str, Any] = column._asdict() | {"error": None}
    values, entry["scale"] = halves(column.values - column.neutral)
    entry["values"] = f"column-{number}"
    blocks[entry["values"]] = array_block(values)
    if column.error is not None:
        errors, entry["errorScale"] = halves(column.error, bits=6)  # two digits
        entry["error"] = f"error-{number}"
        blocks[entry["error"]] = array_block(errors)
    return entry


def _provenance(results: Results) -> str:
    source = results.provenance
    versions = source.get("versions", {})
    commit, dirty, _ = (source.get("commit") or "none").partition("-dirty")
    listed = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    seed = "" if source.get("seed") is None else f"seed {source['seed']} · "
    return f"{source.get('command', '')} · {source.get('created', '')} · {seed}commit {commit[:10]}{dirty} · {listed}"
