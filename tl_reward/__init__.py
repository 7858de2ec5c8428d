"""Open up reward models: a scalar head on a TransformerLens `HookedTransformer`.

>>> import tl_reward
>>> model = tl_reward.load("helpful")  # doctest: +SKIP
>>> model("\\n\\nHuman: Hi\\n\\nAssistant: Hello!")  # doctest: +SKIP
"""

from tl_reward.ablation import AblationCurve, ablation_curve
from tl_reward.discovery import Discovery, discover
from tl_reward.errors import InputError
from tl_reward.interventions import Intervention, ZeroAblation
from tl_reward.model import HookedRewardModel
from tl_reward.overlap import compare, depth_thirds, overlap, regions
from tl_reward.pairs import Message, PreferencePair, load_pairs
from tl_reward.results import Results, provenance
from tl_reward.run import score, stream
from tl_reward.scores import Estimate, Scores
from tl_reward.sites import NeuronSet, Site
from tl_reward.training import TrainingConfig, train

load = HookedRewardModel.from_pretrained

__all__ = [
    "AblationCurve",
    "Discovery",
    "Estimate",
    "HookedRewardModel",
    "InputError",
    "Intervention",
    "Message",
    "NeuronSet",
    "PreferencePair",
    "Results",
    "Scores",
    "Site",
    "TrainingConfig",
    "ZeroAblation",
    "ablation_curve",
    "compare",
    "depth_thirds",
    "discover",
    "load",
    "load_pairs",
    "overlap",
    "provenance",
    "regions",
    "score",
    "stream",
    "train",
]
