from .ablation import AblationCurve, SetAblations, ablate_sets, ablation_curve
from .agreement import Agreement, measure_agreement
from .attribution import Attribution, attribute
from .contrast import Contrast
from .direct import DirectAttribution, direct_attribution, token_attribution
from .discovery import Discovery, discover
from .effects import Comparison, Effects, compare_with_exact, neuron_effects, set_effects
from .entropy import Selectivity, selectivity
from .errors import InputError
from .interventions import Intervention, MeanAblation, ResampleAblation, ScaleAblation, ZeroAblation
from .methods import estimate
from .model import HookedRewardModel, load
from .overlap import compare, depth_thirds, regions
from .pairs import Message, PreferencePair
from .readers import load_pairs
from .results import Results, provenance
from .run import score, sweep
from .scores import Estimate, Scores
from .sites import NeuronSet, Site
from .streaming import stream
from .tension import Tension
from .training import TrainingConfig, train

__all__ = [
    "AblationCurve",
    "Agreement",
    "Attribution",
    "Comparison",
    "Contrast",
    "DirectAttribution",
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
    "Selectivity",
    "SetAblations",
    "Site",
    "Tension",
    "TrainingConfig",
    "ZeroAblation",
    "ablate_sets",
    "ablation_curve",
    "attribute",
    "compare",
    "compare_with_exact",
    "depth_thirds",
    "direct_attribution",
    "discover",
    "estimate",
    "load",
    "load_pairs",
    "measure_agreement",
    "neuron_effects",
    "provenance",
    "regions",
    "score",
    "selectivity",
    "set_effects",
    "stream",
    "sweep",
    "token_attribution",
    "train",
]
