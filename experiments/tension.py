"""Which neurons serve one objective at the other's cost, and what happens to both when they are zeroed?

Command:  .venv/bin/python experiments/tension.py --model mixed --out runs/tension
Cost:     three passes over the pairs that find the neurons, then (1 + draws) passes over the test pairs for each set.
Expect:   the share of neurons in conflict beside what signs shuffled within each layer would give, over all neurons and over those that
          are clear on both; then both accuracies with each set zeroed, beside random sets.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import tl_reward
from tl_reward.analyses.tension import tension
from tl_reward.measures.names import Method
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.sites import UnitSite


@dataclass(frozen=True)
class Config:
    """Estimates each neuron's effect on the margins of both objectives on the embedded pairs' half "find", and zeroes the sets that come
    out of it on the half "test".

    Attributes:
        model: a folder, a hub id, or an embedded model.
        method: how effects are estimated.
        site: "mlp_post" is act(gate) * up, "mlp_gate" is act(gate); "attn_z" is for attention heads.
        fraction: share of all neurons that counts as the top of each objective.
        draws: layer-matched random sets beside each set.
        out: the run folder to write.
        smoke: run a tiny random model on a few pairs.
    """

    model: str = "mixed"
    method: Method = "gradient"
    site: UnitSite = "mlp_post"
    fraction: float = 0.02
    draws: int = 2
    seed: int = 0
    out: Path = Path("runs/tension")
    smoke: bool = False


def main(config: Config) -> None:
    some = slice(None, None, 7 if config.smoke else 1)  # of both objectives, which come one after the other
    find, test = (tl_reward.load_pairs("embedded", split=split)[some] for split in ("find", "test"))
    label = f"random, for {config.model}" if config.smoke else config.model
    with tl_reward.run_folder(config.out, data={"embedded, find": find, "embedded, test": test}, seed=config.seed) as results:
        model = tiny_reward_model() if config.smoke else tl_reward.load(config.model)
        tl_reward.record_model(results, label, model)
        found = tension(model, find, site=config.site, method=config.method, progress="effects")
        tl_reward.record_tension(results, label, "embedded, find", found, fraction=config.fraction)
        sets, entry = tl_reward.sets_of(results, label)
        ablated = tl_reward.ablate_sets(model, test, sets, draws=config.draws, seed=config.seed, site=config.site, progress="sets")
        tl_reward.record_sets(results, label, "embedded, test", ablated, site=config.site, source=entry, pairs=test)


if __name__ == "__main__":
    with tl_reward.one_line_errors("tension"):
        main(tyro.cli(Config, description=__doc__))
