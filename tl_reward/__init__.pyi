from .ablation import AblationCurve, ablation_curve
from .agreement import Agreement, measure_agreement
from .attribution import Attribution, attribute
from .discovery import Discovery, discover
from .effects import Comparison, Effects, compare_with_exact, neuron_effects
from .errors import InputError
from .interventions import Intervention, MeanAblation, ResampleAblation, ScaleAblation, ZeroAblation
from .model import HookedRewardModel, load
from .overlap import compare, depth_thirds, regions
from .pairs import Message, PreferencePair
from .readers import load_pairs
from .results import Results, provenance
from .run import score, sweep
from .scores import Estimate, Scores
from .sites import NeuronSet, Site
from .streaming import stream
from .training import TrainingConfig, train

__all__ = [
    "AblationCurve",
    "Agreement",
    "Attribution",
    "Comparison",
    "Discovery",
    "Effects",
    "Estimate",
    "HookedRewardModel",
    "InputError",
    "Intervention",
    "MeanAblation",
    "Message",
    "NeuronSet",
    "PreferencePair",
    "ResampleAblation",
    "Results",
    "ScaleAblation",
    "Scores",
    "Site",
    "TrainingConfig",
    "ZeroAblation",
    "ablation_curve",
    "attribute",
    "compare",
    "compare_with_exact",
    "depth_thirds",
    "discover",
    "load",
    "load_pairs",
    "measure_agreement",
    "neuron_effects",
    "provenance",
    "regions",
    "score",
    "stream",
    "sweep",
    "train",
]
