"""Which neurons of one reward model, patched into another, give it back the pairs that it lost, and what do they cost?

Command:  .venv/bin/python experiments/patch_across_models.py --model mixed --source helpful --out runs/patched-models
Cost:     four passes to rank the neurons; then (1 + draws) passes over the test pairs for each share.
Expect:   small shares recover more of the lost pairs than layer-matched random sets do; what they cost on the other objective is beside.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

import tl_reward
from tl_reward.data.pairs import pair_hash
from tl_reward.errors import one_line_errors
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.results.record_patching import record_gain, record_model_patching
from tl_reward.results.store import check_run_folder
from tl_reward.show.terminal import summary
from tl_reward.sites import UnitSite, Where


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
    objective: str = "helpful"
    fractions: tuple[float, ...] = (0.005, 0.02, 0.1, 1.0)
    draws: int = 2
    site: UnitSite = "mlp_post"
    where: Where = "all"
    seed: int = 0
    out: Path = Path("runs/patched-models")
    smoke: bool = False


def main(config: Config) -> None:
    check_run_folder(config.out)
    limit, fractions = (6, (0.1, 1.0)) if config.smoke else (None, config.fractions)
    find = tl_reward.load_pairs("embedded", objective=config.objective, split="find", limit=limit)
    test = {o: tl_reward.load_pairs("embedded", objective=o, split="test", limit=limit) for o in ("helpful", "harmless")}
    both = [tiny_reward_model(seed=i) if config.smoke else tl_reward.load(name) for i, name in enumerate((config.model, config.source))]
    names = [f"random, for {name}" if config.smoke else name for name in (config.model, config.source)]
    found_on = f"embedded, {config.objective}, find"
    results = tl_reward.Results(provenance=tl_reward.provenance(seed=config.seed, data={found_on: find} | test))
    gain = tl_reward.gain(*both, find, site=config.site, where=config.where, progress="gain")
    checked = tl_reward.compare_gain_with_exact(
        *both, find, {"gradient": gain.effect}, site=config.site, where=config.where, top=8, random=8, progress="check"
    )
    record_gain(results, *names, found_on, gain, checked)
    for objective, pairs in test.items():
        found = tl_reward.patch_models(
            *both, pairs, gain.effect, fractions=fractions, draws=config.draws, seed=config.seed, site=config.site,
            where=config.where, progress=objective,
        )  # fmt: skip
        record_model_patching(
            results, *names, f"embedded, {objective}, test", found, ranking="estimated gain", site=config.site, where=config.where,
            source={"dataset": found_on, "pair_hashes": [pair_hash(pair) for pair in find]}, pairs=pairs,
        )  # fmt: skip
    print(f"Run: {results.save(config.out)}")
    summary(results, Console(markup=False))


if __name__ == "__main__":
    with one_line_errors("patch_across_models"):
        main(tyro.cli(Config, description=__doc__))
