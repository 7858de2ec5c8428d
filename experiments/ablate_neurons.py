"""What breaks when a reward model's top neurons are zeroed?

Command:  .venv/bin/python experiments/ablate_neurons.py --model mixed --score mean --site mlp_gate --out runs/ablation
Cost:     a pass to find the neurons, then (1 + draws) passes over the test pairs a fraction.
Expect:   margins shrink towards 0 as more is zeroed, unlike with random neurons of the same layers. Where the model was wrong,
          as `mixed` is on embedded helpful pairs with an evasive rejected answer, that raises its accuracy.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import tl_reward
from tl_reward.measures.names import StatisticName
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.sites import UnitSite


@dataclass(frozen=True)
class Config:
    """Zeroes the top neurons. They are found on the embedded pairs' half "find", and tested on the half "test".

    Attributes:
        model: a folder, a hub id, or an embedded model.
        score: the statistic that ranks; the mean at mlp_gate is the study's magnitude.
        site: "mlp_gate" is act(gate), "mlp_post" is act(gate) * up.
        fractions: shares of all neurons.
        draws: random sets at each share.
        out: the run folder to write.
        smoke: run a tiny random model on a few pairs.
    """

    model: str = "mixed"
    score: StatisticName = "mean"
    site: UnitSite = "mlp_gate"
    fractions: tuple[float, ...] = (0.05, 0.1, 0.2)
    draws: int = 3
    seed: int = 0
    out: Path = Path("runs/ablation")
    smoke: bool = False


def main(config: Config) -> None:
    limit = 8 if config.smoke else None
    find, test = (tl_reward.load_pairs("embedded", split=split, limit=limit) for split in ("find", "test"))
    label = f"random, for {config.model}" if config.smoke else config.model
    with tl_reward.run_folder(config.out, data={"embedded, find": find, "embedded, test": test}, seed=config.seed) as results:
        model = tiny_reward_model() if config.smoke else tl_reward.load(config.model)
        tl_reward.record_model(results, label, model)
        found = tl_reward.discover(model, find, sites=[config.site], progress="find")
        tl_reward.record_discovery(results, label, "embedded, find", found)
        ranked = tl_reward.ranking_of(results, label, config.score, config.site)
        curve = tl_reward.ablation_curve(
            model, test, ranked.ranking, fractions=config.fractions, draws=config.draws, seed=config.seed, site=config.site, progress="test"
        )
        tl_reward.record_ablation(
            results, label, "embedded, test", curve, score=config.score, site=config.site, found=ranked.entry, pairs=test
        )


if __name__ == "__main__":
    with tl_reward.one_line_errors("ablate_neurons"):
        main(tyro.cli(Config, description=__doc__))
