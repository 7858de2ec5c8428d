"""What drives a reward model's neurons: at which transcripts, tokens and words is each strongest?

Command:  .venv/bin/python experiments/collect_examples.py --model mixed --ranking runs/tension --out runs/examples
Cost:     one or two forward passes over every transcript, for all neurons at once; a run that was cut short goes on where it was.
Expect:   of every neuron the five transcripts with its largest activations; of those shown in detail also its activation at every token
          of ten transcripts, its distribution by objective and side, and the words and neurons nearest to it by its weights.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import tl_reward
from tl_reward.analyses.examples.collect import NeuronSite
from tl_reward.model import embedded
from tl_reward.model.checkpoints import load_unembedding
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.sites import Where


@dataclass(frozen=True)
class Config:
    """Collects the examples of the neurons that a run ranks highest.

    Attributes:
        model: a folder, a hub id, or an embedded model.
        ranking: a run folder of tension, attribution, effects or discovery of that model.
        most: neurons to show in detail.
        base: the language model that it was trained from, for the words that neurons raise.
        pairs: a file, a hub id, or "embedded".
        where: the tokens over which peaks are taken.
        site: "mlp_post" is act(gate) * up, "mlp_gate" is act(gate).
        out: the run folder to write.
        smoke: run a tiny random model on a few pairs, and show some of its neurons.
    """

    model: str = "mixed"
    ranking: Path | None = None
    most: int = 500
    base: str = embedded.BASE
    pairs: str = "embedded"
    split: str = "test"
    where: Where = "response"
    site: NeuronSite = "mlp_post"
    seed: int = 0
    out: Path = Path("runs/examples")
    smoke: bool = False


def main(config: Config) -> None:
    if config.ranking is None and not config.smoke:
        raise tl_reward.InputError("give a run folder that ranks neurons, with --ranking")
    ranked = tl_reward.Results.load(config.ranking) if config.ranking else None
    some = tl_reward.NeuronSet([(0, 3), (1, 7), (1, 30)])
    neurons = tl_reward.neurons_to_show(ranked, config.model, most=config.most) if ranked else some
    pairs = tl_reward.load_pairs(config.pairs, split=config.split, limit=8 if config.smoke else None)
    dataset = f"{tl_reward.short_name(config.pairs)}, {config.split}"
    state = config.out.with_name(f"{config.out.name}.partial")
    label = f"random, for {config.model}" if config.smoke else config.model
    with tl_reward.run_folder(config.out, data={dataset: pairs}, seed=config.seed) as results:
        model = tiny_reward_model() if config.smoke else tl_reward.load(config.model)
        tl_reward.record_model(results, label, model)
        if ranked:
            tl_reward.check_model(ranked, config.model, model)
        unembedding = None if config.smoke else load_unembedding(config.base)
        found = tl_reward.collect_examples(
            model, pairs, neurons, site=config.site, where=config.where, unembedding=unembedding,
            saved=state, seed=config.seed, progress=label,
        )  # fmt: skip
        tl_reward.record_examples(results, label, dataset, found)
    state.unlink(missing_ok=True)  # the run is on disk
    for (layer, neuron), words in zip(neurons, found.words_in.text, strict=True):
        print(f"{layer}.{neuron}: reads {', '.join(map(repr, words[:5]))}")


if __name__ == "__main__":
    with tl_reward.one_line_errors("collect_examples"):
        main(tyro.cli(Config, description=__doc__))
