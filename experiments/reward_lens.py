"""At which layer, and after which token, does a reward model decide?

Command:  .venv/bin/python experiments/reward_lens.py --models helpful harmless mixed --out runs/lens
Cost:     one pass over the pairs a model.
Expect:   at chance before the first layer, where only the last token is seen; most preferences keep their sign only from the last
          third of the layers on.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import tl_reward
from tl_reward.model.tiny import tiny_reward_model


@dataclass(frozen=True)
class Config:
    """Reads the reward from every layer and at every token of the embedded test pairs.

    Attributes:
        models: folders, hub ids, or embedded models.
        show: pairs of each objective to keep token by token.
        out: the run folder to write.
        smoke: run tiny random models on a few pairs.
    """

    models: tuple[str, ...] = ("helpful", "harmless", "mixed")
    show: int = 1
    out: Path = Path("runs/lens")
    smoke: bool = False


def main(config: Config) -> None:
    limit = 4 if config.smoke else None
    data = {o: tl_reward.load_pairs("embedded", objective=o, split="test", limit=limit) for o in ("helpful", "harmless")}
    with tl_reward.run_folder(config.out, data=data) as results:
        for i, name in enumerate(config.models):
            model = tiny_reward_model(seed=i) if config.smoke else tl_reward.load(name)
            label = f"random, for {name}" if config.smoke else name
            tl_reward.record_model(results, label, model)
            for objective, pairs in data.items():
                found = tl_reward.reward_lens(model, pairs, progress=f"{label}: {objective}")
                tl_reward.record_lens(results, label, f"embedded, {objective}, test", found, model.tokenizer, show=config.show)


if __name__ == "__main__":
    with tl_reward.one_line_errors("reward_lens"):
        main(tyro.cli(Config, description=__doc__))
