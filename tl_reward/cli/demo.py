"""The main job once through on what travels with the package: three reward models, 168 pairs, one page."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from tl_reward import parallel
from tl_reward.analyses.ablation_curves import ablation_curve
from tl_reward.analyses.attribution import attribute
from tl_reward.analyses.discovery import discover
from tl_reward.analyses.exact_effects import compare_with_exact
from tl_reward.analyses.examples.collect import collect_examples
from tl_reward.analyses.tension import tension
from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.readers import EMBEDDED, load_pairs
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.measures.names import StatisticName
from tl_reward.model import embedded
from tl_reward.model.checkpoints import load_unembedding
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.neurons import NeuronSet
from tl_reward.results.record_edits import record_ablation
from tl_reward.results.record_examples import neurons_to_show, record_examples
from tl_reward.results.record_models import record_model
from tl_reward.results.record_neurons import record_attribution, record_discovery, record_overlap, record_scores, record_tension
from tl_reward.results.store import Results
from tl_reward.running.half_precision import half_where_it_agrees, in_half
from tl_reward.show.page import write_page
from tl_reward.show.run_folder import run_folder

OBJECTIVES = ("helpful", "harmless")
# The study's magnitude: the signed mean of the activation module's output.
SCORE: StatisticName = "mean"
SITE = "mlp_gate"
FRACTIONS = (0.05, 0.1, 0.2)
SHOWN = 250  # neurons of each model whose examples the page shows token by token


class _Studied(NamedTuple):
    """What the demo studies: the base, reward models by what they were trained on, and what these and the pairs are called.

    Attributes:
        limit: pairs of each objective and split; None is all.
        template: how transcripts are written; None is the tokenizer's own.
    """

    base: str | Path
    models: Mapping[str, Path]
    model: str = "{}"
    limit: int | None = None
    template: str | None = None

    def called(self, split: str, *objectives: str) -> str:
        """What the run calls some of the embedded pairs."""
        of = " and ".join(objectives)
        return ", ".join([f"embedded {of}" if of else "embedded", split, *([f"first {self.limit}"] if self.limit else [])])


# Not folders of these names that happen to be here.
_EMBEDDED = _Studied(embedded.BASE, {name: embedded.ADAPTERS / name for name in embedded.REWARD_MODELS})


@contextmanager
def _tiny() -> Iterator[_Studied]:
    """Random models, which are called so: whoever sees the page is to know it."""
    from transformers import AutoModelForCausalLM

    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = {name: tiny_hf_model(seed=seed) for seed, name in enumerate(embedded.REWARD_MODELS)}
        base: Any = AutoModelForCausalLM.from_config(models["mixed"].config)
        for name, model in {**models, "base": base}.items():
            model.save_pretrained(folder / name)
            byte_tokenizer().save_pretrained(folder / name)
        yield _Studied(folder / "base", {name: folder / name for name in models}, "random {}", limit=8, template="hh")


def run_demo(output: Path, *, overwrite: bool = False, seed: int = 0, smoke: bool = False) -> Path:
    """Scores, finds neurons, estimates their effects, compares and ablates; writes a run folder with its page, and returns the page's path.

    Neurons are found on one half of the embedded pairs, and everything is tested on the other. As in the study, each model's neurons
    are found on pairs of its own objective, and the mixed model's on both.

    Args:
        smoke: the same on tiny random models and few pairs, to see that it works.
    """
    parallel.require_one("the demo")
    with _tiny() if smoke else nullcontext(_EMBEDDED) as studied:
        results = _run(studied, output, overwrite=overwrite, seed=seed)
    return write_page(results, output / "dashboard.html")


def _run(studied: _Studied, output: Path, *, overwrite: bool, seed: int) -> Results:
    find = {objective: load_pairs(EMBEDDED, objective=objective, split="find")[: studied.limit] for objective in OBJECTIVES}
    test = {objective: load_pairs(EMBEDDED, objective=objective, split="test")[: studied.limit] for objective in OBJECTIVES}
    tested = [pair for objective in OBJECTIVES for pair in test[objective]]
    called = studied.called
    data = {called("find", o): find[o] for o in OBJECTIVES} | {called("test", o): test[o] for o in OBJECTIVES}
    with run_folder(output, data=data, seed=seed, overwrite=overwrite) as results:
        base, unembedding = HookedRewardModel.from_base(studied.base), load_unembedding(studied.base)
        half_base = in_half(base)
        for kind, folder in studied.models.items():
            name = studied.model.format(kind)
            model = HookedRewardModel.from_pretrained(folder, template=studied.template)
            fast, precision = half_where_it_agrees(model, tested, figures={"gradients of the margin": _gradients})
            record_model(results, name, model, precision=precision)
            own = OBJECTIVES if kind == "mixed" else (kind,)
            found = discover(
                fast, [p for o in own for p in find[o]], base=half_base if fast is not model else base, progress=f"{name}: neurons"
            )
            record_discovery(results, name, called("find", *own), found)
            pull = tension(fast, tested, progress=f"{name}: effects")
            record_tension(results, name, called("test"), pull, fraction=0.02)
            if kind == "mixed":
                for objective, effects in pull.effects.items():
                    checked = compare_with_exact(  # by the model itself: these are too small for half precision
                        model, test[objective], {"gradient": effects.effect}, top=6, random=6, seed=seed,
                        progress=f"{name}: neurons zeroed one by one, {objective} pairs",
                    )  # fmt: skip
                    record_attribution(results, name, called("test", objective), {"gradient": effects}, checked)
            examples = collect_examples(
                fast, tested, neurons_to_show(results, name, most=SHOWN), unembedding=unembedding, seed=seed, progress=f"{name}: examples"
            )
            record_examples(results, name, called("test"), examples)
            for objective, scores in examples.scores.by_objective().items():
                dataset = called("test", objective)
                record_scores(results, name, dataset, scores)
                if kind == "mixed":
                    ranking = found.ranking(SCORE, SITE)
                    zeroed = [[ZeroAblation(NeuronSet.top(ranking, fraction=0.1))]]
                    faster, said = half_where_it_agrees(model, test[objective], conditions=zeroed)
                    curve = ablation_curve(
                        faster, test[objective], ranking, fractions=FRACTIONS, draws=2, seed=seed,
                        clean=scores if said.dtype == precision.dtype else None,
                        progress=f"{name}: without neurons, {objective} pairs",
                    )  # fmt: skip
                    entry = results.entry("discovery", name)
                    curve = replace(curve, precision=said)
                    record_ablation(results, name, dataset, curve, score=SCORE, site=SITE, found=entry, pairs=test[objective])
        record_overlap(results, results, scores=[SCORE], sites=[SITE], fraction=0.1)
    return results


def _gradients(model: HookedRewardModel, pairs: EncodedPairs) -> np.ndarray:
    """The estimated effect of every neuron on the margin, on the first of some pairs, [layer * neuron]."""
    return attribute(model, pairs.take([0])).effect.flatten().numpy()
