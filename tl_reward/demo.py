"""The main job once through on what travels with the package: three reward models, 168 pairs, one page."""

from pathlib import Path

from tl_reward import zoo
from tl_reward.ablation import ablation_curve
from tl_reward.dashboard import write_page
from tl_reward.discovery import discover
from tl_reward.model import HookedRewardModel
from tl_reward.readers import EMBEDDED, load_pairs
from tl_reward.record import record_ablation, record_discovery, record_overlap, record_scores
from tl_reward.results import Results, check_run_folder, provenance
from tl_reward.run import score
from tl_reward.statistics import StatisticName

OBJECTIVES = ("helpful", "harmless")
# The study's magnitude: the signed mean of the activation module's output.
SCORE: StatisticName = "mean"
SITE = "mlp_gate"
FRACTIONS = (0.05, 0.1, 0.2)


def run_demo(output: Path, *, overwrite: bool = False, seed: int = 0) -> Path:
    """Scores, finds neurons, compares and ablates; writes a run folder with its page, and returns the page's path.

    Neurons are found on one half of the embedded pairs, and everything is tested on the other. As in the study, each model's neurons
    are found on pairs of its own objective, and the mixed model's on both.
    """
    check_run_folder(output, overwrite=overwrite)
    find = {objective: load_pairs(EMBEDDED, objective=objective, split="find") for objective in OBJECTIVES}
    test = {objective: load_pairs(EMBEDDED, objective=objective, split="test") for objective in OBJECTIVES}
    data = {f"embedded {o}, find": find[o] for o in OBJECTIVES} | {f"embedded {o}, test": test[o] for o in OBJECTIVES}
    results = Results(provenance=provenance(seed=seed, data=data))
    base = HookedRewardModel.from_base(zoo.BASE)
    for name in zoo.REWARD_MODELS:
        model = HookedRewardModel.from_pretrained(zoo.ADAPTERS / name)  # not a folder of that name that happens to be here
        own = OBJECTIVES if name == "mixed" else (name,)
        found_on = f"embedded {' and '.join(own)}, find"
        found = discover(model, [p for o in own for p in find[o]], base=base, progress=f"{name}: neurons")
        record_discovery(results, name, found_on, found)
        for objective in OBJECTIVES:
            dataset = f"embedded {objective}, test"
            if name != "mixed":
                record_scores(results, name, dataset, score(model, test[objective], progress=f"{name}: scores, {objective} pairs"))
                continue
            curve = ablation_curve(
                model, test[objective], found.ranking(SCORE, SITE), fractions=FRACTIONS, draws=2, seed=seed,
                progress=f"{name}: scores with and without neurons, {objective} pairs",
            )  # fmt: skip
            record_scores(results, name, dataset, curve.clean)
            record_ablation(
                results, name, dataset, curve, score=SCORE, site=SITE,
                found=results.sections["discovery"][name], pairs=test[objective],
            )  # fmt: skip
    record_overlap(results, results, scores=[SCORE], sites=[SITE], fraction=0.1)
    results.save(output, overwrite=overwrite)
    return write_page(results, output / "dashboard.html")
