from .ablation import AblationCurve, ablation_curve
from .attribution import Attribution, attribute
from .discovery import Discovery, discover
from .errors import InputError
from .interventions import Intervention, ZeroAblation
from .model import HookedRewardModel, load
from .overlap import compare, depth_thirds, regions
from .pairs import Message, PreferencePair
from .readers import load_pairs
from .results import Results, provenance
from .run import score, stream, sweep
from .scores import Estimate, Scores
from .sites import NeuronSet, Site
from .training import TrainingConfig, train

__all__ = [
    "AblationCurve",
    "Attribution",
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
    "attribute",
    "compare",
    "depth_thirds",
    "discover",
    "load",
    "load_pairs",
    "provenance",
    "regions",
    "score",
    "stream",
    "sweep",
    "train",
]
