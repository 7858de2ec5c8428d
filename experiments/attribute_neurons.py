"""Which neurons move a reward model's margin, and does a cheap estimate of that hold up?

Command:  .venv/bin/python experiments/attribute_neurons.py --model mixed --out runs/attribution
Cost:     about three passes for the estimate of all neurons, then half a pass on average for each neuron that is zeroed alone.
Expect:   a few neurons with effects far beyond the rest. The estimate ranks the large ones nearly right; among neurons drawn at random,
          whose effects are tiny, it agrees less. Both figures are printed.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import tl_reward
from tl_reward.measures.names import METHODS, Method
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.sites import UnitSite


@dataclass(frozen=True)
class Config:
    """Attributes the margin of the embedded test pairs to every neuron, and zeroes a sample of them.

    Attributes:
        model: a folder, a hub id, or an embedded model.
        methods: how to estimate; all by default.
        site: "mlp_post" is act(gate) * up, "mlp_gate" is act(gate); "attn_z" is for attention heads.
        top: neurons with the largest estimates of each method to zero, each alone.
        random: neurons drawn at random to zero, each alone.
        out: the run folder to write.
        smoke: run a tiny random model on a few pairs.
    """

    model: str = "mixed"
    methods: tuple[Method, ...] = tuple(METHODS)
    site: UnitSite = "mlp_post"
    top: int = 8
    random: int = 16
    seed: int = 0
    out: Path = Path("runs/attribution")
    smoke: bool = False


def main(config: Config) -> None:
    pairs = tl_reward.load_pairs("embedded", split="test", limit=8 if config.smoke else None)
    label = f"random, for {config.model}" if config.smoke else config.model
    with tl_reward.run_folder(config.out, data={"embedded, test": pairs}, seed=config.seed) as results:
        model = tiny_reward_model() if config.smoke else tl_reward.load(config.model)
        tl_reward.record_model(results, label, model)
        found: dict[Method, tl_reward.Attribution] = {
            method: tl_reward.estimate(model, pairs, method, site=config.site, progress=method) for method in config.methods
        }
        effects = {method: each.effect for method, each in found.items()}
        checked = tl_reward.compare_with_exact(
            model, pairs, effects, top=config.top, random=config.random, seed=config.seed, site=config.site, progress="one by one"
        )
        tl_reward.record_attribution(results, label, "embedded, test", found, checked)


if __name__ == "__main__":
    with tl_reward.one_line_errors("attribute_neurons"):
        main(tyro.cli(Config, description=__doc__))
