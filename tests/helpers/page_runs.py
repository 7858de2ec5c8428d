"""Runs to draw: of tiny models with everything that a run can hold, of random numbers at any size, and of hostile texts."""

import base64
import gzip
import json
import re
from functools import cache
from typing import Any

import torch

from helpers.repairs import made_up_repair
from helpers.short_pairs import embedded_pairs
from tl_reward.analyses.ablation_curves import ablate_sets, ablation_curve
from tl_reward.analyses.attribution import attribute
from tl_reward.analyses.discovery import discover
from tl_reward.analyses.exact_effects import compare_with_exact, neuron_effects
from tl_reward.analyses.examples.collect import collect_examples
from tl_reward.analyses.tension import tension
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.results.provenance import provenance
from tl_reward.results.record_edits import record_ablation, record_effects, record_repair, record_sets, sets_of
from tl_reward.results.record_examples import neurons_to_show, record_examples
from tl_reward.results.record_neurons import (
    discovery_of,
    record_attribution,
    record_discovery,
    record_overlap,
    record_scores,
    record_tension,
)
from tl_reward.results.store import Results
from tl_reward.running.scoring import score

PAIRS = embedded_pairs("test", 6)
BOTH = [pair for objective in ("helpful", "harmless") for pair in embedded_pairs("test", 4, objective)]
NAMES = ("helpful", "harmless", "mixed")
# What breaks a page that forgets that text is text.
TEXTS = (
    "<script>window.hacked = 1</script>",
    "<!-- comment",
    "</script><script>window.hacked = 2</script>",
    "<br><b>bold</b><img src=x onerror='window.hacked = 3'>",
    "a\u2028b\u2029c",
    "\"quoted\" 'text' &amp; `tick` %%PLOTLY%%",
    "x" * 20_000,
    "\u0645\u0631\u062d\u0628\u0627 \u202eright to left",
    "\U0001f469\u200d\U0001f52c",
    "javascript:alert(1)",
)


def block(text: str, name: str) -> bytes:
    """A page's block of that name."""
    (found,) = re.findall(rf'<script type="text/plain" id="block-{name}">([^<]*)</script>', text)
    return gzip.decompress(base64.b64decode(found))


def document(text: str, name: str) -> Any:
    return json.loads(block(text, name))


@cache
def tiny_run() -> Results:
    results = Results(provenance=provenance(seed=0, data={"pairs": PAIRS}))
    models = [tiny_reward_model(seed=seed) for seed in range(len(NAMES))]
    for name, model in zip(NAMES, models, strict=True):
        record_scores(results, name, "some pairs", score(model, PAIRS))
        record_discovery(results, name, "some pairs", discover(model, PAIRS))
    model, found = models[-1], discovery_of(results, "mixed")
    curve = ablation_curve(model, PAIRS, found.ranking("mean"), fractions=(0.1, 1.0), draws=2)
    entry = results.entry("discovery", "mixed")
    record_ablation(results, "mixed", "some pairs", curve, score="mean", site="mlp_gate", found=entry, pairs=PAIRS[:2])
    record_overlap(results, results, scores=["mean"], sites=["mlp_gate"], fraction=0.1)
    estimate = attribute(model, PAIRS)
    comparison = compare_with_exact(model, PAIRS, {"gradient": estimate.effect}, top=5, random=6)
    record_attribution(results, "mixed", "some pairs", {"gradient": estimate}, comparison)
    record_effects(results, "mixed", "some pairs", neuron_effects(model, BOTH, NeuronSet([(0, 3), (1, 7), (1, 30)])))
    record_tension(results, "mixed", "some pairs", tension(model, BOTH), fraction=0.1)
    sets, source = sets_of(results, "mixed")
    record_sets(results, "mixed", "some pairs", ablate_sets(model, BOTH, sets, draws=2), site="mlp_post", source=source, pairs=BOTH)
    record_repair(results, "mixed", made_up_repair())
    shown = neurons_to_show(results, "mixed", most=20)
    record_examples(results, "mixed", "some pairs", collect_examples(model, BOTH, shown))
    return results


def random_run(layers: int, width: int, *, models: tuple[str, ...] = ("mixed",), shown: int = 0, texts: tuple[str, ...] = TEXTS) -> Results:
    """Random numbers in the shape of a run: two effects and three statistics a model; examples of the first `shown` neurons."""
    results = Results(provenance={"command": "none: random numbers"})
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) ** 3 / 100  # a few large, most small, as effects are

    for model in models:
        effects = {objective: noise(layers, width) for objective in ("harmless", "helpful")}
        tops = [NeuronSet.top(effect, k=max(3, layers * width // 1000)) for effect in effects.values()]
        sets = {"harmless-only": tops[0] - tops[1], "helpful-only": tops[1] - tops[0], "shared": tops[0] & tops[1]}
        conflict = {"neurons": layers * width, "share": 0.5, "chance": 0.5, "low": 0.49, "high": 0.51, "p_value": 1.0}
        entry = {
            "model": model, "dataset": "random numbers", "fraction": 0.001, "site": "mlp_post", "method": "gradient",
            "objectives": list(effects), "pairs": dict.fromkeys(effects, 10), "prompts": dict.fromkeys(effects, 10), "pair_hashes": [],
            "top": {name: neurons.to_json() for name, neurons in sets.items()}, "quadrants": {}, "conflict": conflict,
            "conflict_clear": conflict,
        }  # fmt: skip
        tensors = {f"{name}/effect": effect for name, effect in effects.items()}
        tensors |= {f"{name}/error": effect.abs() / 3 for name, effect in effects.items()}
        results.add("tension", f"{model} · random numbers", entry, tensors)
        statistics = {f"mlp_gate/{name}": noise(2, layers, width) for name in ("mean", "rms", "change")}
        computed = {"dataset": "random numbers", "pairs": 10, "pair_hashes": [], "tokens": 100, "computed": sorted(statistics)}
        extra = {"shape": [layers, width], "firing": [], "where": "response", "contrast": {}}
        results.add("discovery", model, computed | extra, statistics)
        if shown:
            _add_examples(results, model, layers, width, shown, texts, generator)
    return results


def _add_examples(
    results: Results, model: str, layers: int, width: int, shown: int, texts: tuple[str, ...], generator: torch.Generator
) -> None:
    transcripts = [
        {
            "pairs": [f"pair {i} {text[:40]}"], "sides": ["chosen" if i % 2 else "rejected"], "objectives": ["helpful"], "reward": i / 10,
            "tokens": ["Question", "?", text, " answer", text], "response_start": 2,
        }
        for i, text in enumerate(texts)
    ]  # fmt: skip
    count = len(transcripts)
    places = torch.arange(shown * 10).reshape(shown, 10)
    activation = torch.randn(shown * 10 * 5, generator=generator)
    tensors = {
        "top/transcript": torch.randint(count, (5, layers, width), generator=generator).int(),
        "top/peak": torch.randn(5, layers, width, generator=generator),
        "shown/transcript": (places % count).int(),
        "shown/start": places * 5,
        "shown/activation": activation.half(),
        "shown/peak": activation.reshape(shown, 10, 5)[:, :, 2:].abs().amax(2),
        "histogram/edge": torch.linspace(-3, 3, 41).repeat(shown, 1),
        "histogram/count": torch.randint(100, (shown, 2, 40), generator=generator).int(),
        "correlated/neuron": torch.randint(shown, (shown, 5), generator=generator).int(),
        "correlated/value": torch.rand(shown, 5, generator=generator),
        "cosine/neuron": torch.stack([torch.randint(n, (shown, 5), generator=generator) for n in (layers, width)], dim=2).int(),
        "cosine/value": torch.rand(shown, 5, generator=generator),
    }
    words = [[text[:30], 1.5] for text in texts[:10]]
    entry = {
        "model": model, "dataset": "random numbers", "site": "mlp_post", "where": "response", "pairs": count, "pair_hashes": [],
        "tokens": 5 * count,
        "splits": [{"objective": "helpful", "side": side, "transcripts": count // 2} for side in ("chosen", "rejected")],
        "neurons": [[i // width, i % width] for i in range(shown)], "kinds": ["top"] * 5 + ["75 %", "50 %", "25 %"] + ["random"] * 2,
        "transcripts": transcripts, "words_in_of": "gate", "words_in": [words] * shown,
        "words_out": [{"raised": words, "lowered": words}] * shown,
    }  # fmt: skip
    results.add("examples", f"{model} · random numbers", entry, tensors)
