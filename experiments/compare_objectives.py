"""Do helpful, harmless and mixed reward models rely on the same neurons?

Command:  .venv/bin/python experiments/compare_objectives.py --run runs/neurons --out runs/overlap
Cost:     seconds: it reads a run of find_neurons.py and runs no model.
Expect:   Jaccard indices far above both levels of chance; most of a LoRA model's top neurons are its base model's.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import tl_reward
from tl_reward.measures.names import RankingName
from tl_reward.model.tiny import tiny_reward_model


@dataclass(frozen=True)
class Config:
    """Compares top neurons.

    Attributes:
        run: a run folder of find_neurons.py.
        score: the statistic that ranks.
        fraction: share of all neurons.
        out: the run folder to write.
        smoke: compare tiny random models instead of a run.
    """

    run: Path = Path("runs/neurons")
    score: RankingName = "mean"
    fraction: float = 0.1
    out: Path = Path("runs/overlap")
    smoke: bool = False


def random_run() -> tl_reward.Results:
    results = tl_reward.Results()
    pairs = tl_reward.load_pairs("embedded", split="find", limit=4)
    for seed, name in enumerate(("helpful", "harmless", "mixed")):
        tl_reward.record_discovery(results, name, "embedded, find", tl_reward.discover(tiny_reward_model(seed=seed), pairs))
    return results


def main(config: Config) -> None:
    found = random_run() if config.smoke else tl_reward.Results.load(config.run)
    with tl_reward.run_folder(config.out) as results:
        results.provenance = found.provenance | {"command": results.provenance["command"]}
        tl_reward.record_overlap(results, found, scores=[config.score], sites=["mlp_gate"], fraction=config.fraction)


if __name__ == "__main__":
    with tl_reward.one_line_errors("compare_objectives"):
        main(tyro.cli(Config, description=__doc__))
