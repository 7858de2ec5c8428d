"""What do the neurons that move the margin most do to each objective, and does it matter how they are ablated?

Command:  .venv/bin/python experiments/neuron_effects.py --model mixed --out runs/effects
Cost:     three passes to estimate the effect of every neuron, then about a third of a pass for each neuron and kind of ablation.
Expect:   a table for each kind of ablation, the largest effects first: some neurons are never near zero, and zeroing says more of them
          than taking them from another token does.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import tl_reward
from tl_reward.analyses.exact_effects import singles
from tl_reward.measures.names import AblationKind
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.running.activations import sample_activations
from tl_reward.sites import UnitSite


@dataclass(frozen=True)
class Config:
    """Ablates the neurons with the largest estimated effects, each alone and all together. They are found on the embedded pairs' half
    "find", and tested on the half "test".

    Attributes:
        model: a folder, a hub id, or an embedded model.
        top: how many neurons, by the size of their estimated effect on the margin.
        kinds: ways to ablate: to 0, to the mean, to what they are at tokens drawn at random, to half.
        site: "mlp_post" is act(gate) * up, "mlp_gate" is act(gate).
        out: the run folder to write.
        smoke: run a tiny random model on a few pairs.
    """

    model: str = "mixed"
    top: int = 10
    kinds: tuple[AblationKind, ...] = ("zero", "mean", "resample")
    site: UnitSite = "mlp_post"
    seed: int = 0
    out: Path = Path("runs/effects")
    smoke: bool = False


def main(config: Config) -> None:
    limit = 8 if config.smoke else None
    find, test = (tl_reward.load_pairs("embedded", split=split, limit=limit) for split in ("find", "test"))
    label = f"random, for {config.model}" if config.smoke else config.model
    with tl_reward.run_folder(config.out, data={"embedded, find": find, "embedded, test": test}, seed=config.seed) as results:
        model = tiny_reward_model() if config.smoke else tl_reward.load(config.model)
        tl_reward.record_model(results, label, model)
        estimated = tl_reward.estimate(model, find, "gradient", site=config.site, progress="estimate").effect
        neurons = tl_reward.NeuronSet.top(estimated.abs(), k=config.top)
        mean = tl_reward.discover(model, find, sites=[config.site], progress="means").ranking("mean", config.site)
        bank = sample_activations(model, find, config.site, seed=config.seed)
        sets = singles(neurons) | {"all together": neurons}
        for kind in config.kinds:
            effects = tl_reward.set_effects(model, test, sets, kind=kind, site=config.site, mean=mean, bank=bank, progress=kind)
            tl_reward.record_effects(results, label, "embedded, test", effects)


if __name__ == "__main__":
    with tl_reward.one_line_errors("neuron_effects"):
        main(tyro.cli(Config, description=__doc__))
