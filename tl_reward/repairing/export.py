"""A repaired model as an ordinary checkpoint, with a model card that has the evidence; and the evidence as one file."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tl_reward.errors import InputError
from tl_reward.measures.intervals import Estimate
from tl_reward.model import embedded
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.repairing.config import RepairConfig
from tl_reward.repairing.evidence.battery import Shift
from tl_reward.repairing.result import Repair
from tl_reward.repairing.tuning import RULE

CARD, EVIDENCE = "README.md", "repair.json"
_CHANGED = ("reversed", "worse", "moved", "better")  # in the order in which a reader should see them
_KINDS = {"repaired": "this model", "random": "random edit", "uniform": "all neurons scaled", "model": "other model"}


def export(model: HookedRewardModel, found: Repair, folder: str | Path, *, command: str | None = None) -> Path:
    """Writes the model with the edit in its weights as an ordinary Hugging Face checkpoint, and the evidence as its model card.

    Args:
        model: the one that was repaired.
        folder: a new one, or an empty one.
        command: what made the repair, for the card.

    Returns:
        The folder.

    Raises:
        InputError: no edit was chosen; as `Repair.applied` and `HookedRewardModel.save_pretrained`.
    """
    if found.chosen is None:
        raise InputError("no edit was chosen, so that there is nothing to export: the model stays as it is")
    folder = Path(folder)
    found.applied(model).save_pretrained(folder)
    (folder / CARD).write_text(_card(model, found, command), encoding="utf-8")  # last: a folder with a card is whole
    return folder


def write_evidence(found: Repair, folder: Path, *, model: str, config: RepairConfig, provenance: Mapping[str, Any]) -> Path:
    """Writes `repair.json`: the repair, what was tried, and where it came from (command, versions, hashes of data and weights).

    Args:
        model: what the provenance calls the model that was repaired.
    """
    held = {"model": model, **found.to_json(), "config": asdict(config), "provenance": dict(provenance)}
    scratch = folder / f".saving-{EVIDENCE}"
    scratch.write_text(json.dumps(held, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    os.replace(scratch, folder / EVIDENCE)
    return folder / EVIDENCE


def _card(model: HookedRewardModel, found: Repair, command: str | None) -> str:
    base, edited, every = _name(model), len(found.neurons), found.gates.numel()
    parts = [
        [*_front_matter(model), f"# {base}, repaired", ""],
        [
            f"A reward model: {base} with {edited:,} of its {every:,} MLP neurons edited ({edited / every:.2%}), chosen to serve",
            f"{' and '.join(map(_cell, found.objectives))}. No weight was trained: what each of them writes is multiplied by a gate of its",
            f"own. On prompts by which nothing was chosen, accuracy changed so: {'; '.join(_claims(found))}.",
            "",
        ],
        _moved(found),
        _evidence(found),
        _chosen(found),
        _made(model, found, command),
        _limits(model, found),
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def _claims(found: Repair) -> Iterator[str]:
    """What the test says of each objective and protected set."""
    for each in found.evidence:
        if each.kind == "repaired":
            yield f"{_cell(each.tested)} {_text(each.accuracy.difference, sign=True)}, {each.verdict}"


def _front_matter(model: HookedRewardModel) -> list[str]:
    known = _is_on_hub(model)
    lines = ["library_name: transformers", "pipeline_tag: text-classification", "tags: [reward-model, tl_reward]"]
    return ["---", *([f"base_model: {json.dumps(model.origin.path)}"] if known else []), *lines, "---", ""]


def _is_on_hub(model: HookedRewardModel) -> bool:
    path = model.origin.path
    return path is not None and path not in embedded.REWARD_MODELS and not Path(path).is_absolute() and not Path(path).exists()


def _name(model: HookedRewardModel) -> str:
    """A hub id as it is, and of a folder its last part: the rest is of nobody's concern."""
    path = model.origin.path
    return _cell(path if _is_on_hub(model) else Path(path).name) if path else _cell(model.cfg.model_name)


def _moved(found: Repair) -> list[str]:
    """What the edit moved besides, which comes before what it was made for."""
    every = [(tested, shift) for tested, shifts in found.shifts.items() for shift in shifts]
    moved = [(tested, shift) for verdict in _CHANGED for tested, shift in every if shift.verdict == verdict]
    rows = sorted(moved, key=lambda row: row[1].good != "near 0")  # biases first
    lines = ["## What else moved", ""]
    if rows:
        lines += [
            "Figures of the test pairs whose 95 % interval says that the edit moved them. A repair may swap one bias for another:",
            "where the verdict is *reversed*, it did. The change of a bias (a correlation of reward and length) is that of its size,",
            "whatever its sign; the order of rewards is a rank correlation with the rewards before, and is 1 before.",
            "",
        ]
        table = [(tested, shift.name, *_change(shift), shift.verdict) for tested, shift in rows]
        lines += [*_table(("on", "figure", "before", "after", "change", "verdict"), table), ""]
    same = len(every) - len(rows)
    lines += [
        f"Of {len(every)} figures, {same} show no clear change. Each has a 95 % interval, so about one in twenty moves by chance alone. "
        f"All of them are in `{EVIDENCE}`.",
        "",
    ]
    return lines


def _change(shift: Shift) -> tuple[str, str, str]:
    return _text(shift.change.before), _text(shift.change.after), _text(shift.change.difference, sign=True)


def _evidence(found: Repair) -> list[str]:
    """The claim beside its controls, set by set."""
    table = [
        (
            f"{each.tested} (protected)" if each.protected else each.tested,
            _KINDS[each.kind] + ("" if each.kind == "repaired" else f": {each.name}"),
            f"{each.accuracy.before.value:.3f}",
            f"{each.accuracy.after.value:.3f}",
            _text(each.accuracy.difference, sign=True),
            each.verdict,
            _text(each.margin.difference, sign=True),
        )
        for each in found.evidence
    ]
    return [
        "## Evidence",
        "",
        "On pairs of prompts by which nothing was chosen, beside the model as it was. Random edits have the same gates on other neurons of",
        "the same layers. Margins are in standard deviations of the rewards of that model, so that a mere rescaling is no gain.",
        "",
        *_table(("on", "edit or model", "accuracy before", "after", "change", "verdict on accuracy", "change of margin"), table),
        "",
    ]


def _chosen(found: Repair) -> list[str]:
    sizes = [(each["split"], each["name"], f"{each['pairs']:,}", f"{each['prompts']:,}") for each in found.splits]
    return [
        "## How it was chosen",
        "",
        f"Of {sum(each.candidate.way != 'uniform' for each in found.tried):,} candidates: *{_cell(str(found.chosen))}*. The rule: {RULE} "
        f"Tolerated: {100 * found.tolerance:g} points. The test pairs were read once, after that.",
        "",
        *_table(("split", "pairs of", "pairs", "prompts"), sizes),
        "",
    ]


def _made(model: HookedRewardModel, found: Repair, command: str | None) -> list[str]:
    """From what, by what."""
    origin = model.origin
    lines = ["## How it was made", "", f"- base model: {_name(model)} ({origin.architecture}, {origin.layers} layers)"]
    lines += [f"- sha256 of its weights: `{origin.weights}`"]
    lines += [f"- its revision: `{origin.revision}`"] if origin.revision else []
    lines += [f"- output read as the reward: {_cell(found.output)}"] if found.output else []
    return [*lines, *(["", f"    {' '.join(command.split())}"] if command else []), ""]


def _limits(model: HookedRewardModel, found: Repair) -> list[str]:
    template = "with the same chat template" if getattr(model.tokenizer, "chat_template", None) else "as HH-RLHF turns"
    read = " that is not the pad token" if model.readout == "hf" else ""
    prompts = [each["prompts"] for each in found.splits if each["split"] == "test"]
    return [
        "## Limits",
        "",
        f"- Tested on {_from_to(prompts)} prompts of an objective: a change smaller than the intervals above is not seen,",
        "  and other data may show another.",
        "- Only what the tables name was measured. Score this model on your own pairs before you train with it.",
        "- Rewards of this model and of its base are on different scales: compare margins and accuracies, not rewards.",
        f"- It reads transcripts as its base does: {template}, and the reward at the last token{read}.",
    ]


def _from_to(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    head = [*head]
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    """In one line, without what ends a cell or begins markup: names come from files."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    return "".join(f"\\{sign}" if sign in "|<>`*_[]\\" else sign for sign in plain)


def _text(estimate: Estimate, *, sign: bool = False) -> str:
    """A figure with its interval, in brackets that are no markup."""
    spec = "+.3f" if sign else ".3f"
    value, low, high, _ = estimate
    return f"{value:{spec}}" + ("" if low != low else f" ({low:{spec}} to {high:{spec}})")
