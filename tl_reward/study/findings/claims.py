"""Does each claim of the study hold here? A verdict by one rule, which was written down before the numbers were seen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, get_args

from tl_reward.measures.intervals import Estimate
from tl_reward.study.findings import claim_estimates
from tl_reward.study.findings.ablations import Unit
from tl_reward.study.findings.overlaps import THIRDS
from tl_reward.study.matrix import Matrix
from tl_reward.study.rows import FEWEST
from tl_reward.study.table import NONE, Table, Value, header, interval, signed

Word = Literal["agrees", "differs", "cannot be tested here"]
WORDS = get_args(Word)
CLAIMS = "claims"  # the table's name
ROUNDING = 1e-12  # an interval that is narrower says nothing of prompts
UNITS: tuple[Unit, ...] = get_args(Unit)  # of both verdicts
SMALL = "SmolLM2-135M"  # the study's model whose figures we have most of


class Claim(NamedTuple):
    """A claim, as data.

    Attributes:
        kind: "above" and "below": a difference that is above or below 0; "number": a value that is the study's.
        study: the study's figure; of a difference, its effect, or None where we know none.
        source: where the figure stands.
        tolerance: of a number: how far off it may be and still agree. Of a difference of neuron sets, which have no sampling
            interval: how far from 0 it must be; the interval is widened by it.
    """

    text: str
    kind: Literal["above", "below", "number"]
    study: float | None
    source: str
    tolerance: float = 0.0


class Judged(NamedTuple):
    word: Word
    why: str


class Verdict(NamedTuple):
    """A claim with our figure: `ours` is None where something is missing, which `lacks` names; `basis` says what its interval is.

    Attributes:
        by_margin: the same difference, of margins in standard deviations of each condition's own rewards; None of what is no difference of
            accuracies between conditions.
        topic: one of `TOPICS`.
    """

    claim: Claim
    ours: Estimate | None
    basis: str
    lacks: str
    by_margin: Estimate | None = None
    topic: str = ""

    @property
    def judged(self) -> Judged:
        """By the study's own measure."""
        if self.ours is None:
            return Judged("cannot be tested here", f"no {self.lacks}")
        return self._judged(self.claim, self.ours)

    @property
    def judged_by_margin(self) -> Judged | None:
        """The study has no figure in this unit to measure an interval by that holds 0."""
        return None if self.by_margin is None else self._judged(self.claim._replace(study=None), self.by_margin)

    def _judged(self, claim: Claim, ours: Estimate) -> Judged:
        if self.basis == PROMPTS and ours.n < FEWEST:
            return Judged("cannot be tested here", f"too few prompts for an interval: {ours.n}")
        if self.basis == PROMPTS and ours.high - ours.low < ROUNDING:
            return Judged("cannot be tested here", f"all {ours.n} prompts answer alike, which leaves no interval")
        return judge(claim, ours)


PROMPTS, NEURONS, ONE_SEED = "95 % over prompts", "range over seeds", "none: one seed"
RULE = (
    f"What is drawn over fewer than {FEWEST} prompts, or over prompts that all answer alike, cannot be tested here, and no mean goes over "
    "a sub-task of fewer. A difference agrees when our whole interval lies on the claimed side of 0. It differs when the whole interval "
    "lies on the other side, or when it holds 0 and ends below half of the study's effect. Else it cannot be tested here: the interval is "
    "too wide. A number differs when the study's lies outside our interval and further from our value than the tolerance. Else it agrees, "
    "unless our interval's half-width is more than twice the tolerance: then it cannot be tested here. Numbers of neuron sets have no "
    "sampling interval; theirs is the range over seeds, and a difference of two counts beyond 0.01 alone."
)


BY_MARGIN = (
    "Verdict by margin: the same difference, of the mean margin in standard deviations of the rewards of each condition, which moves also "
    "where no row changes sides: for where accuracy is too coarse. It agrees or differs only where its whole interval lies on one side of "
    "0, and is not counted: the study's own measure is accuracy."
)


def judge(claim: Claim, ours: Estimate) -> Judged:
    """The rule of `RULE`.

    >>> judge(Claim("it falls", "below", -0.1, ""), Estimate(-0.08, -0.12, -0.04, 100)).word
    'agrees'
    """
    if claim.kind == "number":
        half = (ours.high - ours.low) / 2
        assert claim.study is not None
        inside = ours.low <= claim.study <= ours.high
        off = abs(ours.value - claim.study)
        if not inside and off > claim.tolerance:
            return Judged("differs", f"off by {off:.4g}, more than the tolerance of {claim.tolerance:g}")
        if half > 2 * claim.tolerance:
            return Judged("cannot be tested here", f"the interval is too wide: ±{half:.3f}")
        return Judged("agrees", "the study's figure is in our interval" if inside else f"within the tolerance of {claim.tolerance:g}")
    sign = 1 if claim.kind == "above" else -1
    low, high = sorted((sign * ours.low, sign * ours.high))
    low, high = low - claim.tolerance, high + claim.tolerance
    half = (high - low) / 2
    if low > 0:
        return Judged("agrees", "the whole interval is on the claimed side of 0")
    if high < 0:
        return Judged("differs", "the whole interval is on the other side of 0")
    if claim.study is None:
        return Judged("cannot be tested here", f"the interval holds 0, at ±{half:.3f}, and the study gives no effect to measure that by")
    if high < abs(claim.study) / 2:
        return Judged("differs", f"the interval holds 0, and ends at {sign * high:+.3f}, below half of the study's effect")
    return Judged("cannot be tested here", f"the interval is too wide: it holds 0, at ±{half:.3f}")


def claims(matrix: Matrix) -> list[Verdict]:
    """Every claim, judged."""
    return [verdict._replace(topic=topic) for topic, judged in TOPICS.items() for verdict in judged(matrix)]


def _accuracy(matrix: Matrix) -> Iterator[Verdict]:
    studied = {
        SMALL: {"helpful": 0.703, "harmless": 0.706},
        "SmolLM2-1.7B": {"helpful": 0.745, "harmless": 0.737, "mixed": 0.732},
    }
    for base, figures in studied.items():
        for objective, figure in figures.items():
            text = f"{base}: the {objective} model has {figure:.1%} of its own objective's test pairs right (HH-RLHF's; ours: the config's)"
            claim = Claim(text, "number", figure, "own-objective HH test accuracy, unablated", 0.03)
            lacks = f"{objective} model of {base} with scores on its objective's test pairs"
            yield Verdict(claim, claim_estimates.own_accuracy(matrix, base, objective), PROMPTS, lacks)


RM_BENCH = f"RM-Bench table, {SMALL}"


def _rm_bench(matrix: Matrix) -> Iterator[Verdict]:
    figures = {
        "chat": {"helpful": 0.501, "harmless": 0.475, "mixed": 0.503},
        "safety-refuse": {"helpful": 0.166, "harmless": 0.923, "mixed": 0.763},
        "safety-response": {"helpful": 0.866, "harmless": 0.179, "mixed": 0.576},
    }
    for task, row in figures.items():
        for objective, figure in row.items():
            claim = Claim(f"{SMALL}: the {objective} model has {figure:.1%} of RM-Bench {task} right", "number", figure, RM_BENCH, 0.05)
            ours = claim_estimates.task_accuracy(matrix, SMALL, objective, f"RM-Bench {task}")
            yield Verdict(claim, ours, PROMPTS, f"{objective} model of {SMALL} with scores on RM-Bench {task}")


def _rm_bench_order(matrix: Matrix) -> Iterator[Verdict]:
    refuse, respond = "RM-Bench safety-refuse", "RM-Bench safety-response"
    for text, one, other, effect in (
        ("the harmless model refuses where it should more than it answers there", ("harmless", refuse), ("harmless", respond), 0.744),
        ("the helpful model answers where it should more than it refuses there", ("helpful", respond), ("helpful", refuse), 0.7),
        ("the mixed model refuses where it should more than the helpful one", ("mixed", refuse), ("helpful", refuse), 0.597),
        ("the mixed model refuses where it should less than the harmless one", ("harmless", refuse), ("mixed", refuse), 0.16),
        ("the mixed model answers where it should more than the harmless one", ("mixed", respond), ("harmless", respond), 0.397),
        ("the mixed model answers where it should less than the helpful one", ("helpful", respond), ("mixed", respond), 0.29),
    ):  # fmt: skip
        ours, margin = (claim_estimates.accuracy_difference(matrix, one, other, unit=unit) for unit in UNITS)
        lacks = "models of these objectives with scores on RM-Bench safety"
        yield Verdict(Claim(f"RM-Bench: {text}", "above", effect, RM_BENCH), ours, PROMPTS, lacks, margin)


def _ablation(matrix: Matrix) -> Iterator[Verdict]:
    # Points of accuracy after minus before: SmolLM2-135M, and the mean of the study's six base models.
    effects = {
        ("harmless", "Harmless"): (-0.146, -0.129),
        ("harmless", "Helpful"): (0.022, 0.010),
        ("helpful", "Helpful"): (-0.055, -0.073),
        ("helpful", "Harmless"): (0.009, 0.055),
        ("mixed", "Harmless"): (-0.095, -0.132),
        ("mixed", "Helpful"): (-0.052, -0.058),
    }
    for (objective, group), figures in effects.items():
        for who, figure in zip((SMALL, ""), figures, strict=True):
            name = who or "mean over base models"
            does = "costs" if figure < 0 else "gives"
            claim = Claim(
                f"{name}: zeroing the {objective} model's top 10 % by magnitude {does} {group} sub-tasks accuracy",
                "below" if figure < 0 else "above", figure, "table of the top 10 % ablated, " + (who or "mean of 6"),
            )  # fmt: skip
            ours, margin = (claim_estimates.group_change(matrix, objective, group, base=who, unit=unit) for unit in UNITS)
            more = f"of {who}" if who else "of two or more base models"
            yield Verdict(
                claim,
                ours,
                PROMPTS,
                f"{objective} models {more} with and without their top 10 % by mean, on {group} sub-tasks of {FEWEST} prompts or more",
                margin,
            )


def _drops(matrix: Matrix) -> Iterator[Verdict]:
    source = "mean relative accuracy drop over every model, RM and ranking"
    drop = "Zeroing the top neurons costs a relative"
    lacks = f"models with their top neurons zeroed at these shares, on {FEWEST} or more prompts of their objective's test pairs"
    for share, figure in ((0.1, 0.115), (0.2, 0.169), (0.3, 0.199)):
        claim = Claim(f"{drop} {figure:.1%} of accuracy at {share:.0%}", "number", figure, source, 0.03)
        yield Verdict(claim, claim_estimates.drop(matrix, share), PROMPTS, lacks)
    for less, more, effect in ((0.1, 0.2, 0.054), (0.2, 0.3, 0.03), (0.1, 0.3, 0.084)):
        claim = Claim(f"The drop is larger at {more:.0%} than at {less:.0%}", "above", effect, source)
        ours, margin = (claim_estimates.drop(matrix, more, less_share=less, unit=unit) for unit in UNITS)
        yield Verdict(claim, ours, PROMPTS, lacks, margin)
    source += ", if random ones cost nothing"
    claim = Claim("Random neurons matter less: at 10 % the top ones cost more", "above", 0.115, source)
    ours, margin = (claim_estimates.drop_beyond_random(matrix, 0.1, unit=unit) for unit in UNITS)
    yield Verdict(claim, ours, PROMPTS, lacks + ", and random ones", margin)
    for objective in ("helpful", "harmless", "mixed"):
        claim = Claim(f"The {objective} model's top 10 % cost it more than random neurons of their layers", "above", 0.115, source)
        ours, margin = (claim_estimates.drop_beyond_random(matrix, 0.1, objective=objective, unit=unit) for unit in UNITS)
        lacks = f"{objective} models with their top 10 % by mean zeroed, and random ones, on {FEWEST} or more of their test prompts"
        yield Verdict(claim, ours, PROMPTS, lacks, margin)


def _neurons(matrix: Matrix) -> Iterator[Verdict]:
    basis = NEURONS
    lacks = f"neurons of {SMALL}, by mean, for these objectives"
    source = f"Jaccard of top 10 % sets (magnitude), {SMALL}"
    figures = {("helpful", "harmless"): 0.703, ("mixed", "helpful"): 0.830, ("mixed", "harmless"): 0.741}
    for pair, figure in figures.items():
        claim = Claim(f"{SMALL}: the top 10 % of {pair[0]} and {pair[1]} have a Jaccard index of {figure}", "number", figure, source, 0.05)
        yield Verdict(claim, claim_estimates.jaccard(matrix, SMALL, pair), basis, lacks)
    for pair in figures:
        claim = Claim(f"{pair[0]} and {pair[1]} share more of their top 10 % than chance", "above", figures[pair] - 0.053, source, 0.01)
        yield Verdict(claim, claim_estimates.jaccard(matrix, "", pair, beyond_chance=True), basis, "neurons of these objectives, by mean")
    for one, other in ((("mixed", "helpful"), ("mixed", "harmless")), (("mixed", "harmless"), ("helpful", "harmless"))):
        text = f"{one[0]} and {one[1]} share more of their top 10 % than {other[0]} and {other[1]}"
        claim = Claim(text, "above", figures[one] - figures[other], source, 0.01)
        yield Verdict(claim, claim_estimates.jaccard_difference(matrix, one, other), basis, "neurons of all three objectives, by mean")


def _depth(matrix: Matrix) -> Iterator[Verdict]:
    basis, source = NEURONS, "top 10 % by depth, read off a figure"
    studied = {"helpful": (0.17, 0.31, 0.52), "harmless": (0.29, 0.32, 0.39), "mixed": (0.15, 0.30, 0.55)}
    for objective, shares in studied.items():
        for third, share in zip(THIRDS, shares, strict=True):
            claim = Claim(f"{share:.0%} of the {objective} model's top 10 % lie in the {third} third", "number", share, source, 0.05)
            yield Verdict(claim, claim_estimates.depth(matrix, objective, third), basis, f"neurons of a {objective} model, by mean")
    for objective, shares in studied.items():
        claim = Claim(f"More of the {objective} model's top 10 % lie late than early", "above", shares[2] - shares[0], source, 0.01)
        yield Verdict(claim, claim_estimates.late_over_early(matrix, objective), basis, f"neurons of a {objective} model, by mean")
    claim = Claim("The helpful model's top 10 % lie later than the harmless one's", "above", 0.13, source + "; late third", 0.01)
    yield Verdict(claim, claim_estimates.later(matrix, "helpful", "harmless"), basis, "neurons of helpful and harmless models, by mean")


def _sets(matrix: Matrix) -> Iterator[Verdict]:
    source = "said of the sets, without a figure"
    for share in (0.05, 0.1, 0.2):
        for name in ("helpful-only", "harmless-only"):
            what = f"at {share:.0%}, zeroing the shared set in the mixed model costs more"
            lacks = f"mixed model with shared and {name} sets zeroed at {share:.0%}, on sub-tasks of {FEWEST} prompts or more"
            claim = Claim(f"Shared neurons matter most: {what} accuracy than the {name} set", "above", None, source)
            ours, margin = (claim_estimates.set_difference(matrix, share, "shared", name, of=unit) for unit in UNITS)
            yield Verdict(claim, ours, PROMPTS, lacks, margin)
            claim = Claim(f"Shared neurons matter most: {what} transferability than the {name} set", "above", None, source)
            yield Verdict(claim, claim_estimates.set_difference(matrix, share, "shared", name, of="kept"), PROMPTS, lacks)


def _kept(matrix: Matrix) -> Iterator[Verdict]:
    lacks = "rows that a single-objective and the mixed model both have right"
    source = "mean reward on rows that both get right"
    claim = Claim("On rows that both have right, the helpful model's rewards are higher than the mixed one's", "above", 0.33, source)
    yield Verdict(claim, claim_estimates.level_difference(matrix, "helpful"), PROMPTS, lacks)
    claim = Claim("On rows that both have right, the harmless model's rewards are lower than the mixed one's", "below", -0.89, source)
    yield Verdict(claim, claim_estimates.level_difference(matrix, "harmless"), PROMPTS, lacks)
    for task, figure in (("RewardBench LLMBar adversarial", 0.24), ("RewardBench 2 Focus", 0.24), ("RewardBench AlpacaEval hard", 0.96)):
        claim = Claim(
            f"The mixed model's transferability on {task} is {figure}", "number", figure, "transferability, mean over models", 0.1
        )
        yield Verdict(claim, claim_estimates.transferability(matrix, task), PROMPTS, f"scores of all three kinds of models on {task}")


# What claims are about, in the order of the report.
TOPICS: Mapping[str, Callable[[Matrix], Iterator[Verdict]]] = {
    "accuracy on a model's own test pairs": _accuracy,
    "accuracy on RM-Bench": _rm_bench,
    "which model refuses and which answers": _rm_bench_order,
    "what the top 10 % cost and give": _ablation,
    "how the drop grows, and random neurons": _drops,
    "overlap of top neurons": _neurons,
    "depth of top neurons": _depth,
    "shared and specific neurons": _sets,
    "rewards and transferability": _kept,
}


class ClaimRow(NamedTuple):
    row: int
    verdict: Word
    claim: str
    study: str
    ours: Value
    n: int
    why: str
    word_by_margin: Annotated[str, "verdict by margin"]
    by_margin: Annotated[Value, "ours, in standard deviations"]
    basis: Annotated[str, "interval is"]
    source: Annotated[str, "source in the study"]


def in_order(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """As the rows of the table: first those that agree, then those that differ."""
    return sorted(verdicts, key=lambda verdict: WORDS.index(verdict.judged.word))


def claims_table(verdicts: Sequence[Verdict]) -> Table:
    """A row a claim, in the order of `in_order`."""
    rows: list[ClaimRow] = []
    for number, verdict in enumerate(in_order(verdicts), 1):
        claim, ours, judged, beside = verdict.claim, verdict.ours, verdict.judged, verdict.judged_by_margin
        basis = NONE if ours is None else ONE_SEED if (verdict.basis, ours.n) == (NEURONS, 1) else verdict.basis
        with_interval = interval(ours) if claim.kind == "number" else signed(ours)
        rows.append(
            ClaimRow(
                number,
                judged.word,
                claim.text,
                "none given" if claim.study is None else f"{claim.study:.3f}" if claim.kind == "number" else f"{claim.study:+.3f}",
                ours=ours.value if ours and basis == ONE_SEED else with_interval,
                n=ours.n if ours else 0,
                why=judged.why,
                word_by_margin=beside.word if beside else NONE,
                by_margin=signed(verdict.by_margin),
                basis=basis,
                source=claim.source,
            )
        )
    return Table(CLAIMS, f"{said(verdicts)} {RULE} {BY_MARGIN}", header(ClaimRow), tuple(rows))


def said(verdicts: Sequence[Verdict]) -> str:
    """How many of the claims have which verdict, in a sentence."""
    agree, differ, rest = (sum(each.judged.word == word for each in verdicts) for word in WORDS)
    return f"Of {len(verdicts)} claims of arXiv 2606.13209, {agree} agree, {differ} differ, and {rest} cannot be tested here."
