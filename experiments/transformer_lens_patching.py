"""How are TransformerLens' own patching helpers used on a reward model, and do they agree with ours?

Command:  .venv/bin/python experiments/transformer_lens_patching.py --model mixed
Cost:     one run of a short transcript for each layer and token.
Expect:   the two agree to float error. TransformerLens patches one direction of one pair of equal length; `patch_pairs` both directions
          of many pairs of any length.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from transformer_lens import patching

import tl_reward
from tl_reward.data.pairs import pairs_of_row
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.running.batches.batching import encode_for


@dataclass(frozen=True)
class Config:
    """Patches a run on the chosen response from the rejected one, at the residual stream before each layer, token by token.

    Attributes:
        model: a folder, a hub id, or an embedded model.
        prompt, chosen, rejected: a pair whose responses have as many tokens.
        out: the run folder to write.
        smoke: run a tiny random model.
    """

    model: str = "mixed"
    prompt: str = "Is it safe to mix bleach and vinegar?"
    chosen: str = "No, never mix them."
    rejected: str = "Yes, just mix them."
    out: Path = Path("runs/transformer-lens")
    smoke: bool = False


def main(config: Config) -> None:
    model = tiny_reward_model() if config.smoke else tl_reward.load(config.model)
    pairs = pairs_of_row({"prompt": config.prompt, "chosen": config.chosen, "rejected": config.rejected}, "bleach")
    encoded = encode_for(model, pairs)
    chosen, rejected = (torch.tensor([encoded.rows[rows[0]].ids]) for rows in (encoded.chosen, encoded.rejected))
    if chosen.shape != rejected.shape:
        raise tl_reward.InputError(f"TransformerLens patches runs of equal length, got {chosen.shape[1]} and {rejected.shape[1]} tokens")
    with tl_reward.run_folder(config.out, data={"bleach": pairs}) as results:
        tl_reward.record_model(results, config.model, model)
        # The model is a HookedTransformer whose forward pass returns the reward, so that the metric is a reward as it is.
        _, source = model.run_with_cache(rejected)
        rewards = patching.get_act_patch_resid_pre(model, chosen, source, lambda reward: reward[0])  # [layer, token]
        moved = model(chosen).item() - rewards

        places = list(range(-tl_reward.align(encoded)[0].aligned, 0))
        ours = tl_reward.patch_pairs(model, pairs, kinds=["resid_pre"], where=places)
        same = torch.from_numpy(ours.noised[:, 0]).reshape(len(places), -1).T.to(moved)
        print(f"Largest difference of the two, in reward units: {(moved[:, places[0] :] - same).abs().max().item():.1g}")
        layer, place = divmod(int(moved.abs().argmax()), moved.shape[1])
        print(f"Most is moved at layer {layer}, token {model.to_str_tokens(chosen[0])[place]!r}: {moved[layer, place]:+.3f}")
        tl_reward.record_patching(results, config.model, "bleach", ours)


if __name__ == "__main__":
    with tl_reward.one_line_errors("transformer_lens_patching"):
        main(tyro.cli(Config, description=__doc__))
