"""Which MLP neurons are loud on preference pairs, and which changed in training?

Command:  .venv/bin/python experiments/find_neurons.py --models helpful harmless mixed --pairs data/train.jsonl --out runs/neurons
Cost:     two forward passes over every transcript (the model and its base), for all scores at once.
Expect:   one tensor [side, layer, neuron] a score; in SmolLM2-135M the loudest neurons by the mean of act(gate) lie late.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import tl_reward
from tl_reward.model import embedded
from tl_reward.model.tiny import tiny_reward_model


@dataclass(frozen=True)
class Config:
    """Finds neurons.

    Attributes:
        models: folders, hub ids, or the embedded helpful, harmless, mixed.
        base: the language model that they were trained from.
        pairs: a file, a hub id, or "embedded".
        split: "find" for the embedded pairs that are kept for this.
        out: the run folder to write.
        smoke: run a tiny random model on a few pairs.
    """

    models: tuple[str, ...] = ("helpful", "harmless", "mixed")
    base: str = embedded.BASE
    pairs: str = "embedded"
    split: str = "find"
    out: Path = Path("runs/neurons")
    smoke: bool = False


def main(config: Config) -> None:
    pairs = tl_reward.load_pairs(config.pairs, split=config.split, limit=8 if config.smoke else None)
    dataset = f"{tl_reward.short_name(config.pairs)}, {config.split}"
    with tl_reward.run_folder(config.out, data={dataset: pairs}) as results:
        base = tiny_reward_model(seed=1) if config.smoke else tl_reward.HookedRewardModel.from_base(config.base)
        for name in config.models:
            model = tiny_reward_model() if config.smoke else tl_reward.load(name)
            label = f"random, for {name}" if config.smoke else name
            tl_reward.record_model(results, label, model)
            tl_reward.record_discovery(results, label, dataset, tl_reward.discover(model, pairs, base=base, progress=label))


if __name__ == "__main__":
    with tl_reward.one_line_errors("find_neurons"):
        main(tyro.cli(Config, description=__doc__))
