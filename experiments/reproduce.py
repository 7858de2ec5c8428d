"""Which findings of arXiv 2606.13209 hold? Trains, scores, finds, ablates, patches and trains again, as a config says, and judges each.

Command:  .venv/bin/python experiments/reproduce.py --config experiments/configs/local.toml --data DATA --out runs/local
Cost:     1.5 to 2 hours on 2 cores for local.toml, minutes for embedded.toml; gpu.toml and study.toml, the paper's size, want GPUs.
          --plan says how much before anything runs, and which claims it can decide; a run that was cut short goes on where it was.
Expect:   report.md and report.html with a verdict on every claim, and every table as CSV, Markdown and LaTeX. Overlaps agree closely;
          accuracies on few rows have wide intervals.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from tl_reward.cli.entry import ReproduceCommand
from tl_reward.errors import one_line_errors
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.study.config import parse_config
from tl_reward.study.report.runner import reproduce

BESIDE = Path(__file__).resolve().parents[2] / "shared/data"


@dataclass(frozen=True)
class Config:
    """Reproduces the study.

    Attributes:
        config: a TOML file; see experiments/configs.
        data: the folder that $DATA stands for in it. By default shared/data beside the checkout, where there is one.
        out: the folder for cells and report.
        plan: print what would run and which claims it can decide, and run nothing.
        jobs: processes that compute cells side by side.
        smoke: a tiny random base model, on a few embedded pairs.
    """

    config: Path = Path("experiments/configs/embedded.toml")
    data: Path | None = BESIDE if BESIDE.is_dir() else None
    out: Path = Path("runs/reproduction")
    plan: bool = False
    jobs: int = 1
    smoke: bool = False


def smoke(out: Path) -> None:
    base, pairs = out / "tiny-base", {"train": ["embedded"], "test": ["embedded"]}
    tiny_hf_model().save_pretrained(base)
    byte_tokenizer().save_pretrained(base)
    table = {
        "bases": [{"name": "tiny", "source": str(base)}],
        "objectives": ["helpful", "harmless", "mixed"],
        "seeds": [0],
        "training": {"batch_size": 4, "max_pairs": 4, "max_length": 2000},
        "data": {"helpful": pairs, "harmless": pairs},
        "benchmarks": {},
        "rankings": ["mean", "change"],
        "fractions": [0.1],
        "set_fractions": [0.1],
        "patch_fractions": [0.1],
        "draws": 1,
        "limits": {"rows": 4, "discovery": 4},
        "retrain": {"kinds": ["masked"], "fractions": [0.0, 0.1], "objectives": ["mixed"], "pairs": 4},
    }
    print(f"Report: {reproduce(parse_config(table), out)}")


def main(config: Config) -> None:
    if config.smoke:
        smoke(config.out)
    else:
        ReproduceCommand(config.config, config.out, config.data, config.plan, config.jobs).run()


if __name__ == "__main__":
    with one_line_errors("reproduce"):
        main(tyro.cli(Config, description=__doc__))
