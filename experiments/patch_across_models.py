"""Which neurons of one reward model, patched into another, give it back the pairs that it lost, and what do they cost?

Command:  .venv/bin/python experiments/patch_across_models.py --model mixed --source helpful --out runs/patched-models
Cost:     four passes to rank the neurons; then (1 + draws) passes over the test pairs for each share.
Expect:   small shares recover more of the lost pairs than layer-matched random sets do; what they cost on the other objective is beside.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import tl_reward
from tl_reward.data.pairs import Objective
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.sites import UnitSite, Where

OBJECTIVES: tuple[Objective, ...] = ("helpful", "harmless")


@dataclass(frozen=True)
class Config:
    """Ranks neurons by their estimated gain on the embedded pairs' half "find", and patches the top ones on the half "test".

    Attributes:
        model: the model that is patched.
        source: the model that activations come from.
        objective: what the neurons are ranked on.
        fractions: shares of all neurons.
        draws: layer-matched random sets at each share.
        site: "mlp_post" is act(gate) * up, "mlp_gate" is act(gate); "attn_z" is for attention heads.
        where: tokens whose activations are replaced: "readout", "response" or "all".
        out: the run folder to write.
        smoke: run tiny random models on a few pairs.
    """

    model: str = "mixed"
    source: str = "helpful"
    objective: Objective = "helpful"
    fractions: tuple[float, ...] = (0.005, 0.02, 0.1, 1.0)
    draws: int = 2
    site: UnitSite = "mlp_post"
    where: Where = "all"
    seed: int = 0
    out: Path = Path("runs/patched-models")
    smoke: bool = False


def main(config: Config) -> None:
    limit, fractions = (6, (0.1, 1.0)) if config.smoke else (None, config.fractions)
    find = tl_reward.load_pairs("embedded", objective=config.objective, split="find", limit=limit)
    test = {o: tl_reward.load_pairs("embedded", objective=o, split="test", limit=limit) for o in OBJECTIVES}
    into, out_of = (f"random, for {name}" if config.smoke else name for name in (config.model, config.source))
    dataset, site, where = f"embedded, {config.objective}, find", config.site, config.where
    origin = tl_reward.found_on(dataset, find)
    with tl_reward.run_folder(config.out, data={dataset: find, **test}, seed=config.seed) as results:
        model = tiny_reward_model(seed=0) if config.smoke else tl_reward.load(config.model)
        source = tiny_reward_model(seed=1) if config.smoke else tl_reward.load(config.source)
        tl_reward.record_model(results, into, model)
        tl_reward.record_model(results, out_of, source)
        gain = tl_reward.gain(model, source, find, site=site, where=where, progress="gain")
        checked = tl_reward.compare_gain_with_exact(
            model, source, find, {"gradient": gain.effect}, site=site, where=where, top=8, random=8, progress="check"
        )
        tl_reward.record_gain(results, into, out_of, dataset, gain, checked)
        for objective, pairs in test.items():
            found = tl_reward.patch_models(
                model, source, pairs, gain.effect, fractions=fractions, draws=config.draws, seed=config.seed, site=site, where=where,
                progress=objective,
            )  # fmt: skip
            tl_reward.record_model_patching(
                results, into, out_of, f"embedded, {objective}, test", found, ranking="estimated gain", site=site, where=where,
                source=origin, pairs=pairs,
            )  # fmt: skip


if __name__ == "__main__":
    with tl_reward.one_line_errors("patch_across_models"):
        main(tyro.cli(Config, description=__doc__))
