"""Can few neurons of the mixed reward model be edited so that it serves helpfulness and harmlessness better, and what else moves?

Command:  .venv/bin/python experiments/repair_mixed.py --data DATA --out runs/repair-mixed
Cost:     some 20 passes over the tune pairs, then (3 + draws + models) passes over the test pairs and the protected ones: about an hour
          and a half on 2 cores with bf16, by counting tokens.
Expect:   no edit gains clearly, and the chosen one (82 neurons halved) does nothing on the test pairs (docs/results.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tyro

import tl_reward
from tl_reward.data.encoding import encode_pairs
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.repairing.export import write_evidence
from tl_reward.running.batches.batching import tokenizer_of

OBJECTIVES = ("helpful", "harmless")
SMOKE = tl_reward.RepairConfig(fractions=(0.1,), strengths=(0.0,), learn_steps=1, draws=1)


@dataclass(frozen=True)
class Config:
    """Repairs the embedded mixed model on RMB: found and tuned on two halves of the prompts of its train split, tested on its test split.

    Attributes:
        data: a folder with rmb/{helpful,harmless}-{train,test}.jsonl.gz; the files in its rm-bench, if any, are protected.
        pairs: of each objective, to find on and to tune on at most this many each.
        max_length: of these, the longest, in tokens; tested is on all.
        protected_rows: rows of each RM-Bench file, of nine pairs each.
        repair: which edits are tried, and how one is chosen.
        out: the run folder to write, with repair.json and model/.
        smoke: repair a tiny random model on the embedded pairs.
    """

    data: Path = Path("data")
    pairs: int = 200
    max_length: int = 256
    protected_rows: int = 15
    repair: tl_reward.RepairConfig = field(default_factory=tl_reward.RepairConfig)
    out: Path = Path("runs/repair-mixed")
    smoke: bool = False


def pairs_of(config: Config, split: str) -> list[tl_reward.PreferencePair]:
    if config.smoke:
        return tl_reward.load_pairs("embedded", split="find" if split == "train" else split)[::2]
    return [pair for o in OBJECTIVES for pair in tl_reward.load_pairs(config.data / "rmb" / f"{o}-{split}.jsonl.gz")]


def some(pairs: Sequence[tl_reward.PreferencePair], most: int) -> dict[str, list[tl_reward.PreferencePair]]:
    """Of each objective at most so many, evenly through the data."""
    parts = {o: [pair for pair in pairs if pair.objective == o] for o in OBJECTIVES}
    return {o: [own[i] for i in np.linspace(0, len(own) - 1, min(most, len(own))).astype(int)] for o, own in parts.items()}


def main(config: Config) -> None:
    label, files = ("random", []) if config.smoke else ("mixed", sorted((config.data / "rm-bench").glob("*.json*")))
    protect = {f"RM-Bench {tl_reward.short_name(file.name)}": tl_reward.load_pairs(file, limit=config.protected_rows) for file in files}
    train, test = (pairs_of(config, split) for split in ("train", "test"))
    with tl_reward.run_folder(config.out, data={"train": train, "test": test, **protect}, seed=config.repair.seed) as results:
        model = tiny_reward_model() if config.smoke else tl_reward.load(label)
        singles = {o: tiny_reward_model(seed=i) if config.smoke else tl_reward.load(o) for i, o in enumerate(OBJECTIVES, 1)}
        for name, each in {label: model, **singles}.items():
            tl_reward.record_model(results, name, each)
        fitting = encode_pairs(train, tokenizer_of(model), max_length=config.max_length).pairs
        find, tune = (some(half, config.pairs) for half in tl_reward.halves_by_prompt(fitting))
        found = tl_reward.repair(model, find, tune, test, protect=protect, singles=singles, config=config.repair, progress=label)
        tl_reward.record_repair(results, label, found)
    write_evidence(found, config.out, model=label, config=config.repair, provenance=results.provenance)
    if found.chosen is not None:
        print(f"Model: {tl_reward.export(model, found, config.out / 'model', command=results.provenance['command'])}")


if __name__ == "__main__":
    with tl_reward.one_line_errors("repair_mixed"):
        given = tyro.cli(Config, description=__doc__)
        main(replace(given, repair=SMOKE, max_length=2000) if given.smoke else given)
