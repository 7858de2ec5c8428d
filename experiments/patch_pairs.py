"""Which sites of a reward model suffice to move the reward from one response to the other?

Command:  .venv/bin/python experiments/patch_pairs.py --model mixed --out runs/patching
Cost:     about half a pass over the pairs for each site and layer, 45 in all; attribution patching takes three more.
Expect:   patching the residual stream moves more and more of the gap with depth, and all of it after the last layer; single attention
          or MLP outputs move a little each, the late ones most.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import tl_reward
from tl_reward.analyses.pair_patching import aligned_tokens
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.sites import SiteKind, Where


@dataclass(frozen=True)
class Config:
    """Patches each embedded test pair's chosen run from its rejected one, and back; and the first pair token by token.

    Attributes:
        model: a folder, a hub id, or an embedded model.
        kinds: sites, in every layer; "attn_z" is each head by itself.
        where: tokens to patch: "readout", "response" or "all" that have a counterpart.
        tokens: whether to patch the first pair token by token too, at the first of the kinds.
        limit: how many pairs of each objective.
        out: the run folder to write.
        smoke: run a tiny random model on a few pairs.
    """

    model: str = "mixed"
    kinds: tuple[SiteKind, ...] = ("resid_post", "attn_out", "mlp_out")
    where: tuple[Where, ...] = ("all",)
    tokens: bool = True
    limit: int = 20
    out: Path = Path("runs/patching")
    smoke: bool = False


def main(config: Config) -> None:
    limit = 3 if config.smoke else config.limit
    pairs = [p for o in ("helpful", "harmless") for p in tl_reward.load_pairs("embedded", objective=o, split="test", limit=limit)]
    label = f"random, for {config.model}" if config.smoke else config.model
    with tl_reward.run_folder(config.out, data={"embedded, test": pairs}) as results:
        model = tiny_reward_model() if config.smoke else tl_reward.load(config.model)
        tl_reward.record_model(results, label, model)
        found = tl_reward.patch_pairs(model, pairs, kinds=config.kinds, where=config.where, progress="sites")
        tl_reward.record_patching(results, label, "embedded, test", found)
        if config.tokens:
            tokens = aligned_tokens(model, pairs[0])
            places = list(range(-len(tokens), 0))
            one = tl_reward.patch_pairs(model, pairs[:1], kinds=config.kinds[:1], where=places, progress="tokens")
            tl_reward.record_patching(results, label, f"pair {pairs[0].id}", one, tokens=tokens)


if __name__ == "__main__":
    with tl_reward.one_line_errors("patch_pairs"):
        main(tyro.cli(Config, description=__doc__))
