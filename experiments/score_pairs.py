"""Do reward models prefer the chosen response, and by how much?

Command:  .venv/bin/python experiments/score_pairs.py --models helpful harmless mixed --pairs data/test.jsonl --out runs/scores
Cost:     one forward pass over every transcript; about 400 tokens/s for 135M parameters on 2 cores.
Expect:   each embedded model above 0.5 on RMB pairs of its objective. On embedded helpful pairs, where many rejected answers are
          evasive, harmless and mixed are far below 0.5: they prefer the evasion.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import tl_reward
from tl_reward.model.tiny import tiny_reward_model


@dataclass(frozen=True)
class Config:
    """Scores pairs.

    Attributes:
        models: folders, hub ids, or the embedded helpful, harmless, mixed.
        pairs: a file, a hub id, or "embedded".
        split: "test" for the embedded pairs that found no neurons.
        out: the run folder to write.
        smoke: run a tiny random model on a few pairs.
    """

    models: tuple[str, ...] = ("helpful", "harmless", "mixed")
    pairs: str = "embedded"
    split: str = "test"
    out: Path = Path("runs/scores")
    smoke: bool = False


def main(config: Config) -> None:
    pairs = tl_reward.load_pairs(config.pairs, split=config.split, limit=8 if config.smoke else None)
    dataset = f"{tl_reward.short_name(config.pairs)}, {config.split}"
    with tl_reward.run_folder(config.out, data={dataset: pairs}) as results:
        for name in config.models:
            model = tiny_reward_model() if config.smoke else tl_reward.load(name)
            label = f"random, for {name}" if config.smoke else name
            tl_reward.record_model(results, label, model)
            tl_reward.record_scores(results, label, dataset, tl_reward.score(model, pairs, progress=label))


if __name__ == "__main__":
    with tl_reward.one_line_errors("score_pairs"):
        main(tyro.cli(Config, description=__doc__))
