"""How does a reward model answer edits of your own: steering, noise, clamped neurons? Three worked interventions to start from.

Command:  .venv/bin/python experiments/custom_interventions.py --model mixed --out runs/custom
Cost:     one pass over the pairs for each edit, and one without.
Expect:   steering by a constant raises every reward, so it moves rewards far more than margins; noise of a layer's own scale blurs
          margins; clamping neurons to their mean on chosen transcripts removes what they tell apart.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

import tl_reward
from tl_reward import NeuronSet, Site
from tl_reward.model.tiny import tiny_reward_model


def steer(model, layer, size):
    """Adds `size` units of the reward direction to the residual stream after a layer."""
    direction = model.W_U[:, 0] / model.W_U[:, 0].norm()
    return tl_reward.intervention(Site(layer, "resid_post"), per_token=True)(lambda a: a + size * direction.to(a))


class AddNoise:
    """Adds Gaussian noise of `share` of each token's root mean square to the residual stream after a layer. Which drawn vector a token
    gets follows from it and its place: an edit that differs from run to run could not be compared."""

    per_token = True

    def __init__(self, model, layer, share, seed):
        self.name, self.share = Site(layer, "resid_post").hook_name, share
        self.drawn = torch.randn(1009, model.cfg.d_model, generator=torch.Generator().manual_seed(seed))

    def hooks(self, batch):
        noise = self.drawn[(batch.tokens * 31 + batch.position * 17).cpu() % len(self.drawn)]

        def fn(activation, hook):
            scale = activation.float().pow(2).mean(-1, keepdim=True).sqrt()
            return activation + self.share * scale * noise.to(activation.device)

        return [(self.name, fn)]


def clamp_to_chosen(model, pairs, count):
    """Sets the neurons that tell chosen from rejected responses apart the best to their mean on chosen transcripts."""
    found = tl_reward.discover(model, pairs, sites=["mlp_post"])
    neurons = NeuronSet.top(found.ranking("auroc", "mlp_post"), k=count)
    return tl_reward.MeanAblation(neurons, found.by_side["mlp_post", "mean"][0])


@dataclass(frozen=True)
class Config:
    """Scores the first `limit` embedded test pairs under each edit. smoke: with a tiny random model, on a few pairs."""

    model: str = "mixed"
    limit: int = 40
    out: Path = Path("runs/custom")
    smoke: bool = False


def main(config: Config) -> None:
    limit = 6 if config.smoke else config.limit
    find, test = (tl_reward.load_pairs("embedded", split=split, limit=limit) for split in ("find", "test"))
    with tl_reward.run_folder(config.out, data={"embedded, test": test}, seed=0) as results:
        model = tiny_reward_model() if config.smoke else tl_reward.load(config.model)
        late = model.cfg.n_layers * 2 // 3
        edits = {
            "no edit": [],
            "steered": [steer(model, late, size=5.0)],
            "noise": [AddNoise(model, late, share=0.5, seed=0)],
            "clamped": [clamp_to_chosen(model, find, count=20)],
        }
        for name, interventions in edits.items():
            scores = tl_reward.score(model, test, interventions=interventions, progress=name)
            tl_reward.record_scores(results, name, "embedded, test", scores)


if __name__ == "__main__":
    with tl_reward.one_line_errors("custom_interventions"):
        main(tyro.cli(Config, description=__doc__))
