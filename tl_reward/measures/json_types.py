"""What is measured, as the JSON of a run has it: the types of what `to_json` gives, of the analyses' results too.

Nothing here imports a model: a page is made where there is none.
"""

from collections.abc import Sequence
from typing import Literal, NotRequired  # pydantic, which checks runs, reads `typing`'s own from Python 3.12 on

from typing_extensions import TypedDict

from tl_reward.measures.names import Method
from tl_reward.sites import SiteKind, UnitSite, Where

# (layer, neuron) of each.
NeuronsJson = list[list[int]]


class EstimateJson(TypedDict):
    """An `Estimate`; there is no interval below two prompts."""

    value: float
    low: float | None
    high: float | None
    n: int


class MaybeEstimateJson(TypedDict):
    """An `Estimate` that may be of nothing: None stands for nan, which JSON has not."""

    value: float | None
    low: float | None
    high: float | None
    n: int


class ScoreSummaryJson(TypedDict):
    """`best_of_n` is None where no pair is part of a best-of-n row."""

    pairs: int
    ties: int
    accuracy: EstimateJson
    mean_margin: EstimateJson
    best_of_n: EstimateJson | None


class ScoresJson(ScoreSummaryJson):
    """`Scores` without the rewards. Parts by name; none where there is but one."""

    dropped: int
    subsets: dict[str, ScoreSummaryJson]
    objectives: dict[str, ScoreSummaryJson]


class AgreementJson(TypedDict):
    """An `Agreement`; `precision` by k, as text."""

    neurons: int
    spearman: MaybeEstimateJson
    pearson: MaybeEstimateJson
    sign: MaybeEstimateJson
    precision: dict[str, MaybeEstimateJson]


class PairOverlapJson(TypedDict):
    """The `Overlap` of the sets named `a` and `b`."""

    a: str
    b: str
    shared: int
    jaccard: float
    chance: float
    chance_by_layer: float
    p_value: float


class OverlapsJson(TypedDict):
    """What `compare` gives; `depth` is the share in the early, the middle and the late third of the layers."""

    neurons: dict[str, int]
    depth: dict[str, Sequence[float]]
    pairs: list[PairOverlapJson]
    regions: NotRequired[dict[str, int]]
    single_in_mixed: NotRequired[float]


class AblationPointJson(TypedDict):
    """An `AblationPoint`. What is random is one number a draw."""

    fraction: float
    neurons: int
    ties_at_cut: int
    ranked: ScoresJson
    relative_drop: EstimateJson
    relative_drop_by_objective: dict[str, EstimateJson]
    random_accuracy: list[float]
    random_margin: list[float]
    random_by_objective: dict[str, list[float]]


class PrecisionJson(TypedDict):
    """A `Precision`: in which one matrices were multiplied, and how far figures in half precision were from the model's own."""

    dtype: str
    own: str
    asked: bool
    margins: int
    error: float | None
    largest: float | None
    correlation: float | None
    figures: NotRequired[dict[str, float]]  # earlier runs have none


class AblationCurveJson(TypedDict):
    """An `AblationCurve`."""

    clean: ScoresJson
    points: list[AblationPointJson]


class SetAblationsJson(TypedDict):
    """`SetAblations`."""

    clean: ScoresJson
    sets: dict[str, AblationPointJson]


class EffectJson(TypedDict):
    """What editing one set takes off each mean: of the margin, of the two rewards, and of the accuracy."""

    name: str
    neurons: NeuronsJson
    margin: EstimateJson
    chosen: EstimateJson
    rejected: EstimateJson
    accuracy: EstimateJson
    by_objective: dict[str, EstimateJson]


class ConflictJson(TypedDict):
    """A `Conflict`."""

    neurons: int
    share: float
    chance: float
    low: float
    high: float
    p_value: float


class TensionJson(TypedDict):
    """A `Tension` without the effects; `pairs` and `prompts` by objective."""

    site: UnitSite
    method: Method
    objectives: list[str]
    pairs: dict[str, int]
    prompts: dict[str, int]
    quadrants: dict[str, NeuronsJson]
    conflict: ConflictJson
    conflict_clear: ConflictJson


class TokenPairJson(TypedDict):
    """The text of two tokens that stand for each other."""

    chosen: str
    rejected: str


class PatchedCellJson(TypedDict):
    """One patch of `PairPatching`. `noising` and `denoising` are shares of the reward gap, `noised` and `denoised` means in reward units;
    `tokens` are those replaced, in all chosen and in all rejected transcripts."""

    kind: SiteKind
    where: Where | int
    layer: int | None
    unit: int | None
    noising: EstimateJson
    denoising: EstimateJson
    noised: float
    denoised: float
    tokens: list[int]


class PairPatchingJson(TypedDict):
    """`PairPatching` without what moved in each pair; `aligned` are the fields of `Alignment`, one number a pair."""

    pairs: int
    ids: list[str]
    clean: ScoresJson
    cells: list[PatchedCellJson]
    agreement: AgreementJson | None
    aligned: dict[str, list[int]]


class ModelPatchingPointJson(AblationPointJson):
    """A point of `ModelPatching`."""

    recovered: MaybeEstimateJson
    random_recovered: list[float | None]
    kept: MaybeEstimateJson
    random_kept: list[float | None]


class ModelPatchingJson(TypedDict):
    """`ModelPatching`; `lost` pairs are right in the source and wrong in the model."""

    clean: ScoresJson
    points: list[ModelPatchingPointJson]
    source: ScoresJson
    lost: int


class RewardLensJson(TypedDict):
    """A `RewardLens`: one estimate a depth, and one number a pair."""

    pairs: int
    ids: list[str]
    accuracy: list[EstimateJson]
    mean_margin: list[EstimateJson]
    agreement: list[EstimateJson]
    decided_at_depth: list[int]
    decided_at_token: list[int]
    tokens_after_prefix: list[int]


# Of a repair: what is good of a figure, what its interval says, what stands beside the model as it is, and what that does to accuracy.
Good = Literal["near 0", "high", "neither"]
ShiftVerdict = Literal["better", "worse", "reversed", "no clear change", "moved"]
CompareKind = Literal["repaired", "random", "uniform", "model"]
CompareVerdict = Literal["better", "worse", "no clear change"]


class PairedJson(TypedDict):
    """A `Paired`: a figure before and after an edit, and the paired difference."""

    before: MaybeEstimateJson
    after: MaybeEstimateJson
    difference: MaybeEstimateJson


class ShiftJson(PairedJson):
    """A `Shift` of the battery of a repair."""

    name: str
    question: str
    good: Good
    verdict: ShiftVerdict


class ComparedJson(TypedDict):
    """A `Compared` of a repair: an edit, or another model, beside the model as it is, on one set of test pairs."""

    kind: CompareKind
    name: str
    tested: str
    protected: bool
    verdict: CompareVerdict
    p_value: float
    accuracy: PairedJson
    margin: PairedJson


class TriedJson(TypedDict):
    """A `Tried` of a repair: a candidate on the tune pairs, by objective; one that is no finalist on some of them alone."""

    name: str
    way: str
    about: str
    neurons: int
    finalist: bool
    chosen: bool
    accuracy: dict[str, PairedJson]
    margin: dict[str, PairedJson]


class SplitSizeJson(TypedDict):
    """How many pairs of an objective, or of a protected set, are in one split, after what was left out, and of how many prompts."""

    split: Literal["find", "tune", "test", "protect"]
    name: str
    pairs: int
    prompts: int
    hash: str


class RepairJson(TypedDict):
    """A `Repair`. `gates` are those of `neurons`; `rule` says in words how one was chosen of `tried`; `shifts` by what was tested."""

    objectives: list[str]
    shape: list[int]
    chosen: str | None
    neurons: NeuronsJson
    gates: list[float]
    splits: list[SplitSizeJson]
    tried: list[TriedJson]
    rule: str
    tolerance: float
    precision: PrecisionJson
    evidence: list[ComparedJson]
    shifts: dict[str, list[ShiftJson]]
