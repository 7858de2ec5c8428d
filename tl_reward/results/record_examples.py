"""How the examples of neurons enter a run, and which neurons of a run are worth showing."""

import hashlib
import json
from collections.abc import Iterator
from itertools import chain, zip_longest

from jaxtyping import Float
from torch import Tensor

from tl_reward.analyses.examples.collect import KINDS, Examples, ExampleTranscript, Split
from tl_reward.analyses.examples.words import Words
from tl_reward.errors import InputError
from tl_reward.measures.json_types import EffectJson
from tl_reward.neurons import NeuronSet
from tl_reward.results.disk.plain import listed
from tl_reward.results.sections import (
    AttributionEntry,
    EffectsEntry,
    ExamplesEntry,
    SplitJson,
    TensionEntry,
    TranscriptJson,
    WordsJson,
    entry_about,
    read,
)
from tl_reward.results.store import Results


def record_examples(results: Results, model: str, dataset: str, found: Examples) -> None:
    """Transcripts and words in the JSON; `top/…` [5, layer, neuron], `shown/…` [shown, example], the activations at all tokens of the
    examples one after the other in `shown/activation`, histograms and neighbours as tensors. Transcripts are indices into the JSON's list,
    -1 for none."""
    entry: ExamplesEntry = {
        **entry_about(results.provenance, model, dataset, found.scores.output),
        "site": found.site,
        "where": found.where,
        "pairs": len(found.pairs),
        "pair_hashes": list(found.pairs),
        "tokens": found.tokens,
        **read(found.reading),
        "splits": [_split_json(split) for split in found.splits],
        "neurons": found.neurons.to_json(),
        "kinds": list(KINDS),
        "transcripts": [_transcript_json(transcript) for transcript in found.transcripts],
        "words_in_of": found.words_in_of,
        "words_in": _words_json(found.words_in),
        "words_out": None
        if found.words_out is None
        else [
            {"raised": raised, "lowered": lowered}
            for raised, lowered in zip(_words_json(found.words_out.raised), _words_json(found.words_out.lowered), strict=True)
        ],
    }
    tensors = {
        "top/transcript": found.top.int(),
        "top/peak": found.top_peak,
        "shown/transcript": found.example.int(),
        "shown/peak": found.example_peak,
        "shown/start": found.start,
        "shown/activation": found.activation,
        "histogram/edge": found.edge,
        "histogram/count": found.count.int(),
        "correlated/neuron": found.correlated.int(),
        "correlated/value": found.correlation,
        "cosine/neuron": found.cosine_neuron.int(),
        "cosine/value": found.cosine,
    }
    # Named by what is shown, so that runs which show different neurons can be merged.
    digest = hashlib.sha256(json.dumps(found.neurons.to_json()).encode()).hexdigest()[:6]
    names = ", ".join(f"{layer}.{neuron}" for layer, neuron in found.neurons)
    shown = names if len(found.neurons) <= 3 else f"{len(found.neurons)} neurons {digest}"
    results.add("examples", f"{entry['model']} · {dataset}, {found.where} tokens at {found.site}: {shown}", entry, tensors)


def _split_json(split: Split) -> SplitJson:
    return {"objective": split.objective, "side": split.side, "transcripts": split.transcripts}


def _transcript_json(transcript: ExampleTranscript) -> TranscriptJson:
    return {
        "pairs": list(transcript.pairs),
        "sides": list(transcript.sides),
        "objectives": list(transcript.objectives),
        "reward": transcript.reward,
        "tokens": list(transcript.tokens),
        "response_start": transcript.response_start,
    }


def _words_json(words: Words) -> list[WordsJson]:
    return [[list(pair) for pair in zip(*row, strict=True)] for row in zip(words.text, words.value.tolist(), strict=True)]


def neurons_to_show(results: Results, model: str, *, most: int = 500) -> NeuronSet:
    """The neurons of a model that a run says most of: those with exact effects, then in turn the next of each ranking that it holds, up to
    `most`.

    Rankings are by |effect| of each objective of a tension and of each method of an attribution, and by a statistic of a discovery: the
    mean at mlp_post or mlp_gate, or else the first one there.

    Raises:
        InputError: the run holds no neurons of that model.
    """
    if most < 1:
        raise InputError(f"most must be at least 1, got {most}")
    exact = [(layer, neuron) for each in _exact(results, model) if len(each["neurons"]) == 1 for layer, neuron in each["neurons"]]
    tops = [_top(ranking, most) for ranking in _rankings(results, model)]
    taken: dict[tuple[int, int], None] = {}
    for place in chain(exact, (place for places in zip_longest(*tops) for place in places)):
        if len(taken) < most and place is not None:
            taken.setdefault(place)
    if not taken:
        has = listed(f"{section} of {name}" for section, names in results.names().items() for name in names)
        raise InputError(f"this run holds no MLP neurons of {model!r}; it has {has}")
    return NeuronSet(taken)


def _top(ranking: Float[Tensor, "layer neuron"], most: int) -> list[tuple[int, int]]:
    order = ranking.flatten().sort(descending=True, stable=True).indices[:most]
    return [divmod(place, ranking.shape[1]) for place in order.tolist()]


def _is_of(entry: AttributionEntry | EffectsEntry | TensionEntry, model: str) -> bool:
    return entry["model"] == model and entry["site"] != "attn_z"


def _exact(results: Results, model: str) -> Iterator[EffectJson]:
    for entry in results.sections.get("attribution", {}).values():
        if _is_of(entry, model):
            yield from entry["exact"]
    for entry in results.sections.get("effects", {}).values():
        if _is_of(entry, model):
            yield from entry["effects"]


def _rankings(results: Results, model: str) -> Iterator[Tensor]:
    for name, entry in results.sections.get("tension", {}).items():
        for objective in entry["objectives"] if _is_of(entry, model) else ():
            yield results.tensor("tension", name, f"{objective}/effect").abs()
    for name, entry in results.sections.get("attribution", {}).items():
        for method in entry["methods"] if _is_of(entry, model) else ():
            yield results.tensor("attribution", name, f"{method}/effect").abs()
    discovery = results.sections.get("discovery", {}).get(model)
    computed = [key for key in discovery["computed"] if "attn_z" not in key] if discovery else []
    if computed:
        means = [key for key in ("mlp_post/mean", "mlp_gate/mean") if key in computed]
        yield results.tensor("discovery", model, (means + computed)[0]).mean(0)
