"""What a page says first: what the reward models are, where to click, and what was found, each sentence with the places behind it."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tl_reward.results.findings.every import findings_of
from tl_reward.results.findings.finding import LinkJson
from tl_reward.results.store import Results
from tl_reward.show.neuron_columns import Column, tension_key
from tl_reward.show.page.panel import Panel

# What the models that travel with the package were trained on: 1,300 pairs of RMB each (docs/model_card.md).
_TRAINED_TO = {
    "helpful": "to prefer the more helpful of two answers",
    "harmless": "to prefer the safer of two answers",
    "mixed": "on pairs of both kinds",
}
_MOST_SETS = 6  # of which regions are drawn
_ADAPTERS = ("tl_reward", "model", "adapters")


def found_on_page(results: Results, columns: Sequence[Column], panels: Sequence[Panel], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data for front/findings.js.

    Args:
        manifest: the page's: `models`, `tensions` and `overlaps` say what is on it.
    """
    places = _Places(results, columns, panels, manifest)
    findings = [
        {"sentence": each.sentence, "rule": each.rule, "links": [place for link in each.links if (place := places.of(link)) is not None]}
        for each in findings_of(results.sections)
    ]
    shapes = manifest["models"]
    return {"about": ABOUT, "models": models_of(results, shapes), "guide": guide(shapes, mapped=len(columns) > 0), "findings": findings}


ABOUT = (
    "A reward model reads a prompt with an answer and gives the answer a number, its reward. Of a pair of answers, the chosen one should "
    "get more than the rejected one; the margin is by how much it does."
)


def models_of(results: Results, shapes: Sequence[Mapping[str, Any]], most: int = 6) -> list[str]:
    """What each reward model is, in a line."""
    told = results.provenance.get("models", {})
    models = {name: told.get(name, {}) for name in dict.fromkeys([*(each["name"] for each in shapes), *sorted(results.models())])}
    said = [
        f"{name}: {_recipe(name)} {_TRAINED_TO[name]}" if _is_embedded(name, model) else f"{name}: {_described(model)}"
        for name, model in models.items()
        if model
    ]
    return said[:most] + ([f"and {len(said) - most} more"] if len(said) > most else [])


def guide(shapes: Sequence[Mapping[str, Any]], *, mapped: bool) -> str:
    """What can be done here, with or without a map."""
    read = "A button below a sentence leads to the plot behind it. In brackets: 95 % intervals."
    if not shapes:
        return read
    layer, neuron = min(12, shapes[0]["layers"] - 1), min(345, shapes[0]["width"] - 1)
    begin = "Click a cell of the map below, or type" if mapped else "Type"
    return f'{begin} a neuron ({layer}.{neuron}: layer {layer}, neuron {neuron}) into "Neuron" at the top, to open it. {read}'


def _is_embedded(name: str, told: Mapping[str, Any]) -> bool:
    return name in _TRAINED_TO and Path(str(told.get("path") or "")).parts[-4:] == (*_ADAPTERS, name)


def _recipe(name: str) -> str:
    """How an embedded model was made, as the record beside its weights says."""
    record = json.loads(files("tl_reward").joinpath(*_ADAPTERS[1:], name, "training.json").read_text(encoding="utf-8"))
    base = str(record["base"]).replace("smollm2-135m-instruct", "SmolLM2-135M-Instruct")
    return f"{base}, trained ({record['config']['method'].replace('lora', 'LoRA')}) with {record['pairs']:,} pairs of the RMB benchmark"


def _described(told: Mapping[str, Any]) -> str:
    """A model by its short name and its size. Folders of the machine that made the run are not told to whoever reads the page."""
    path = Path(str(told.get("path") or "a model made in memory"))
    size = f"{told.get('architecture')}, {told.get('layers')} layers of {told.get('d_mlp')} neurons"
    return f"{path.name if path.is_absolute() else path} ({size})"


class _Places:
    """Where on the page an entry of the run is seen."""

    def __init__(self, results: Results, columns: Sequence[Column], panels: Sequence[Panel], manifest: Mapping[str, Any]) -> None:
        self.results, self.panels = results, panels
        self.models = {each["name"] for each in manifest["models"]}
        self.shapes = {column.values.shape for column in columns}
        self.keys = {(column.model, column.key) for column in columns}
        neurons = [name for name, entry in results.sections.get("tension", {}).items() if entry["site"] != "attn_z"]
        self.tensions = {name: number for number, name in enumerate(neurons)}
        self.overlaps = {each["name"]: number for number, each in enumerate(manifest["overlaps"])}

    def of(self, link: LinkJson) -> dict[str, Any] | None:
        """None where the page does not show it."""
        model = link.get("model")
        told = {"label": link["label"]} | ({"model": model} if model in self.models else {})
        if "neuron" in link:
            return told | {"neuron": link["neuron"]} if model in self.models else None
        if link["section"] == "tension" and link["name"] in self.tensions:
            entry = self.results.entry("tension", link["name"])
            return told | {
                "metric": tension_key(self.results, entry, entry["objectives"][0]),
                "place": f"tension-{self.tensions[link['name']]}",
            }
        if link["section"] == "discovery":
            metric = next((key for site in ("mlp_gate", "mlp_post") if (model, key := f"AUROC of {site}") in self.keys), None)
            return told | {"metric": metric, "place": "map"} if metric else None
        if link["section"] == "overlap" and link["name"] in self.overlaps:
            number = self.overlaps[link["name"]]
            if "sets" in link and self._is_in_the_table(link["name"], len(link["sets"])):
                return told | {"set": f"overlap:{number}:{2 ** len(link['sets']) - 1}", "place": "table"}
            return told | {"place": f"overlap-{number}"}
        panel = next((each for each in self.panels if each.section == link["section"] and link["name"] in each.entries), None)
        return told | {"panel": panel.title} if panel else None

    def _is_in_the_table(self, overlap: str, sets: int) -> bool:
        """Whether the table has neurons of an overlap's shape, and the page regions of so many sets (front/profile.js)."""
        entry = self.results.entry("overlap", overlap)
        return sets <= _MOST_SETS and (entry["n_layers"], entry["d_mlp"]) in self.shapes
