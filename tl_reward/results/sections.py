"""What each section of a run holds: the type of its entries. `disk/` checks that a run which is written or read has them.

A run is read and written as these types say. `record_…` makes entries, `Results.section` and `Results.entry` give them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from tl_reward.data.reading import Reading, ReadingJson
from tl_reward.measures.agreement import Precision
from tl_reward.measures.json_types import (
    AblationCurveJson,
    AgreementJson,
    EffectJson,
    ModelPatchingJson,
    NeuronsJson,
    OverlapsJson,
    PairPatchingJson,
    PrecisionJson,
    RepairJson,
    RewardLensJson,
    ScoresJson,
    SetAblationsJson,
    TensionJson,
    TokenPairJson,
)
from tl_reward.measures.names import labelled
from tl_reward.sites import UnitSite, Where


class About(TypedDict):
    """The reward model and the data set that an entry is about, and the output that the model is read by, where it has several."""

    model: str
    dataset: str
    output: NotRequired[str]


def entry_about(provenance: Mapping[str, Any], model: str, dataset: str, output: str) -> About:
    """What an entry says of what it is about: a model that is read by one of several outputs is called by both names.

    Args:
        provenance: the run's; where nobody has chosen an output, its record of the model says which one the published model takes.
        output: as `Scores.output`.
    """
    label = labelled(model, output)
    models = provenance.get("models")
    recorded = models.get(label) if isinstance(models, Mapping) else None
    read_by = output or (str(recorded.get("output", "")) if isinstance(recorded, Mapping) else "")
    told: About = {"model": label, "dataset": dataset}
    return {**told, "output": read_by} if read_by else told


class Read(TypedDict):
    """How many pairs were given, how many of them left out, by reason, and what is to be known of the others. Earlier runs do not say."""

    reading: NotRequired[ReadingJson]


def read(reading: Reading | None) -> Read:
    """What an entry says of the pairs that were read; nothing where that is not known."""
    return {"reading": reading.to_json()} if reading else {}


class Made(TypedDict):
    """In which precision the edited models ran. Earlier runs do not say."""

    precision: NotRequired[PrecisionJson]


def made(precision: Precision | None) -> Made:
    """What an entry says of how it was made; nothing where that is not known."""
    return {"precision": precision.to_json()} if precision else {}


class FoundOn(TypedDict):
    """What found neurons: the data set, the hash of each of its pairs, and the output, where the model has several. Entries of "discovery",
    "attribution" and "tension" have it."""

    dataset: str
    pair_hashes: list[str]
    output: NotRequired[str]


class Tested(TypedDict):
    """What tests neurons that were found before: where that was, how many of the tested pairs it used (None where it is not known which
    it used, as of neurons that somebody named), and by which output it was, where that is another one than the tested one."""

    found_on: str
    tested_pairs_that_found: int | None
    found_by_output: NotRequired[str]


class ScoresEntry(About, Read, ScoresJson):
    ids: list[str]


class ContrastSummary(TypedDict):
    """Transcripts on each side; neurons found at a false discovery rate of 5 %, of how many."""

    chosen: int
    rejected: int
    discoveries: int
    neurons: int
    largest_auroc_error: float


class DiscoveryEntry(FoundOn, Read):
    """`computed` are "site/statistic", `firing` objectives; `shape` is that of the first statistic, [layer, neuron]."""

    pairs: int
    tokens: int
    computed: list[str]
    shape: list[int]
    firing: list[str]
    where: Where
    contrast: dict[UnitSite, ContrastSummary]


class SplitJson(TypedDict):
    """A `Split`."""

    objective: str
    side: str
    transcripts: int


class TranscriptJson(TypedDict):
    """An `ExampleTranscript`."""

    pairs: list[str]
    sides: list[str]
    objectives: list[str]
    reward: float
    tokens: list[str]
    response_start: int


# Of a neuron, [token, number] each, the strongest first.
WordsJson = list[list[Any]]


class WordsOutJson(TypedDict):
    raised: WordsJson
    lowered: WordsJson


class ExamplesEntry(About, Read):
    """Words are of each of `neurons`. `kinds` says of each example of a neuron how it was chosen."""

    site: UnitSite
    where: Where
    pairs: int
    pair_hashes: list[str]
    tokens: int
    splits: list[SplitJson]
    neurons: NeuronsJson
    kinds: list[str]
    transcripts: list[TranscriptJson]
    words_in_of: Literal["gate", "in"]
    words_in: list[WordsJson]
    words_out: list[WordsOutJson] | None


class MethodJson(TypedDict):
    """How well a method's estimates agree with exact effects: over all neurons edited, and over those drawn at random."""

    about: str
    agreement: AgreementJson
    agreement_drawn: AgreementJson


class CheckedEffectJson(EffectJson):
    """An exact effect, with what each method estimates, and whether the neuron was drawn at random."""

    estimated: dict[str, float]
    drawn: bool


class AttributionEntry(About, FoundOn, Read, Made):
    site: UnitSite
    kind: str
    methods: dict[str, MethodJson]
    best: str
    pairs: int
    exact: list[CheckedEffectJson]


class EffectsEntry(About, Read, Made):
    site: UnitSite
    kind: str
    pairs: int
    clean: ScoresJson
    sets: list[str]
    effects: list[EffectJson]


class TensionEntry(About, FoundOn, Read, TensionJson):
    fraction: float
    top: dict[str, NeuronsJson]


class AblationEntry(About, Tested, Read, Made, AblationCurveJson):
    """`pairs`: how many, of which the rewards are kept. Earlier runs keep none, and do not say."""

    score: str
    site: str
    pairs: NotRequired[int]


class SetsEntry(About, Tested, Read, Made, SetAblationsJson):
    site: str


class RepairEntry(About, RepairJson):
    """`dataset` lists the names of what was tested: the objectives' test pairs and the protected sets."""


class OverlapEntry(OverlapsJson):
    """`score` and `site` are lists in words where rankings differ in them."""

    score: str
    site: str
    fraction: float
    n_layers: int
    d_mlp: int
    ties_at_cut: dict[str, int]
    top: dict[str, NeuronsJson]


class PatchingEntry(About, Read, PairPatchingJson):
    tokens: NotRequired[list[TokenPairJson]]


class ModelPatchingEntry(About, Tested, Read, ModelPatchingJson):
    source_model: str
    ranking: str
    site: str
    where: str


class TokenRewards(TypedDict):
    """After each token past the prefix that a pair's transcripts share, the reward so far."""

    tokens: list[str]
    reward: list[float]


class ShownPair(TypedDict):
    id: str
    shared: int
    decided_at_token: int
    chosen: TokenRewards
    rejected: TokenRewards


class LensEntry(About, Read, RewardLensJson):
    shown: list[ShownPair]


class UneditedStudyEntry(TypedDict):
    """A model of the study that no edit of a kind can be made of: `edits` is empty."""

    model: list[Any]
    edits: Annotated[list[list[Any]], Field(max_length=0)]


class EditedStudyEntry(TypedDict):
    """One model of the study under several edits. Lists are one a pair."""

    model: list[Any]
    edits: list[list[Any]]
    dropped: int
    ids: list[str]
    groups: list[str]
    subsets: list[str]
    prompts: list[str]
    objectives: list[str]
    tasks: list[str]


StudyEntry = EditedStudyEntry | UneditedStudyEntry


class Sections(TypedDict, total=False):
    """Section → name → entry. The name is a reward model, or a model and a data set."""

    scores: dict[str, ScoresEntry]
    discovery: dict[str, DiscoveryEntry]
    examples: dict[str, ExamplesEntry]
    attribution: dict[str, AttributionEntry]
    effects: dict[str, EffectsEntry]
    tension: dict[str, TensionEntry]
    ablation: dict[str, AblationEntry]
    sets: dict[str, SetsEntry]
    overlap: dict[str, OverlapEntry]
    patching: dict[str, PatchingEntry]
    model_patching: dict[str, ModelPatchingEntry]
    lens: dict[str, LensEntry]
    repair: dict[str, RepairEntry]
    study: dict[str, StudyEntry]


SECTIONS = tuple(Sections.__annotations__)


class Provenance(TypedDict, total=False):
    """What is read of a run's provenance; it may hold more."""

    created: str
    command: str
    seed: int | None
    commit: str | None
    versions: dict[str, str | None]
    models: dict[str, Made]  # and what tells a model from others
    data: dict[str, dict[str, Any]]
