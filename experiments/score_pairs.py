"""Do reward models prefer the chosen response, and by how much?

Command:  .venv/bin/python experiments/score_pairs.py --models helpful harmless mixed --pairs data/test.jsonl --out runs/scores
Cost:     one forward pass over every transcript; about 400 tokens/s for 135M parameters on 2 cores.
Expect:   each embedded model above 0.5 on RMB pairs of its objective. On embedded helpful pairs, where many rejected answers are
          evasive, harmless and mixed are far below 0.5: they prefer the evasion.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

import tl_reward
from tl_reward import parallel
from tl_reward.data.readers import short_name
from tl_reward.errors import one_line_errors
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.results.record_neurons import record_scores
from tl_reward.results.store import check_run_folder
from tl_reward.show.terminal import summary


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
    check_run_folder(config.out)
    pairs = tl_reward.load_pairs(config.pairs, split=config.split, limit=8 if config.smoke else None)
    dataset = f"{short_name(config.pairs)}, {config.split}"
    results = tl_reward.Results(provenance=tl_reward.provenance(data={dataset: pairs}))
    for name in config.models:
        model = tiny_reward_model() if config.smoke else tl_reward.load(name)
        label = f"random, for {name}" if config.smoke else name
        scores = tl_reward.score(model, pairs, progress=label)
        record_scores(results, label, dataset, scores)
    folder = results.save(config.out)
    if parallel.is_first():
        print(f"Run: {folder}")
        summary(results, Console(markup=False))


if __name__ == "__main__":
    with one_line_errors("score_pairs"):
        main(tyro.cli(Config, description=__doc__))
