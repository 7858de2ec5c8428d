"""A tiny study: a base model and pairs in a folder, and the config that runs it."""

import json
from pathlib import Path

from helpers.short_pairs import embedded_pairs
from tl_reward.measures.overlap import OBJECTIVES
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model


def make_data(root: Path) -> Path:
    """A base model, and the embedded pairs, cut short, as files of a folder that is called as RMB's is."""
    tiny_hf_model().save_pretrained(root / "base")
    byte_tokenizer().save_pretrained(root / "base")
    (root / "rmb").mkdir()
    for objective in OBJECTIVES:
        for split in ("find", "test"):
            rows = [
                {"id": pair.id, "objective": objective, "subset": pair.subset, "prompt": pair.chosen[0].content}
                | {"chosen": pair.chosen[-1].content, "rejected": pair.rejected[-1].content}
                for pair in embedded_pairs(split, 42, objective)
            ]
            (root / "rmb" / f"{objective}-{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def table(data: Path) -> dict:
    pairs = {name: {split: [f"$DATA/rmb/{name}-{of}.jsonl"] for split, of in (("train", "find"), ("test", "test"))} for name in OBJECTIVES}
    return {
        "bases": [{"name": "tiny", "source": str(data / "base")}],
        "objectives": ["helpful", "harmless", "mixed"],
        "seeds": [0],
        "training": {"batch_size": 4, "max_pairs": 12, "max_length": 2000, "epochs": 2, "learning_rate": 1e-2, "save_every": 1},
        "data": pairs,
        "benchmarks": {"RMB": ["$DATA/rmb/helpful-test.jsonl", "$DATA/rmb/harmless-test.jsonl"]},
        "rankings": ["mean", "random"],
        "fractions": [0.1, 0.2, 1.0],
        "set_fractions": [0.1],
        "patch_fractions": [0.1],
        "draws": 2,
        "limits": {"rows": 3, "discovery": 4},
        "retrain": {"kinds": ["masked", "pruned"], "fractions": [0.0, 0.1], "objectives": ["mixed"], "pairs": 4},
        "dtype": "float32",
    }
