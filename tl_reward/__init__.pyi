from .ablation import AblationCurve, SetAblations, ablate_sets, ablation_curve
from .agreement import Agreement, measure_agreement
from .alignment import Alignment, align
from .attribution import Attribution, attribute
from .contrast import Contrast
from .custom import intervention
from .direct import DirectAttribution, direct_attribution, token_attribution
from .discovery import Discovery, discover
from .effects import Comparison, Effects, compare_with_exact, neuron_effects, set_effects
from .entropy import Selectivity, selectivity
from .errors import InputError
from .examples import Examples, collect_examples
from .interventions import Intervention, MeanAblation, ResampleAblation, ScaleAblation, ZeroAblation
from .lens import RewardLens, reward_lens
from .methods import estimate
from .model import HookedRewardModel, load
from .model_patching import ModelPatching, compare_gain_with_exact, gain, patch_models
from .overlap import compare, depth_thirds, regions
from .pair_patching import PairPatching, patch_pairs
from .pairs import Message, PreferencePair
from .patching import HeadPatch, Patch, Source, patch_between
from .path_patching import PathPatch
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
    "Alignment",
    "Attribution",
    "Comparison",
    "Contrast",
    "DirectAttribution",
    "Discovery",
    "Effects",
    "Estimate",
    "Examples",
    "HeadPatch",
    "HookedRewardModel",
    "InputError",
    "Intervention",
    "MeanAblation",
    "Message",
    "ModelPatching",
    "NeuronSet",
    "PairPatching",
    "Patch",
    "PathPatch",
    "PreferencePair",
    "ResampleAblation",
    "Results",
    "RewardLens",
    "ScaleAblation",
    "Scores",
    "Selectivity",
    "SetAblations",
    "Site",
    "Source",
    "Tension",
    "TrainingConfig",
    "ZeroAblation",
    "ablate_sets",
    "ablation_curve",
    "align",
    "attribute",
    "collect_examples",
    "compare",
    "compare_gain_with_exact",
    "compare_with_exact",
    "depth_thirds",
    "direct_attribution",
    "discover",
    "estimate",
    "gain",
    "intervention",
    "load",
    "load_pairs",
    "measure_agreement",
    "neuron_effects",
    "patch_between",
    "patch_models",
    "patch_pairs",
    "provenance",
    "regions",
    "reward_lens",
    "score",
    "selectivity",
    "set_effects",
    "stream",
    "sweep",
    "token_attribution",
    "train",
]
