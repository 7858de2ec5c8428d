from .analyses.ablation_curves import AblationCurve, SetAblations, ablate_sets, ablation_curve
from .analyses.attribution import Attribution, attribute, estimate
from .analyses.direct_attribution import DirectAttribution, direct_attribution, token_attribution
from .analyses.discovery import Discovery, discover
from .analyses.exact_effects import Comparison, Effects, compare_with_exact, neuron_effects, set_effects
from .analyses.examples.collect import Examples, collect_examples
from .analyses.model_patching import ModelPatching, compare_gain_with_exact, gain, patch_models
from .analyses.pair_patching import PairPatching, patch_pairs
from .analyses.reward_lens import RewardLens, reward_lens
from .analyses.tension import Tension
from .data.alignment import Alignment, align
from .data.pairs import Message, PreferencePair
from .data.readers import load_pairs
from .errors import InputError
from .interventions.ablations import MeanAblation, ResampleAblation, ScaleAblation, ZeroAblation
from .interventions.from_functions import intervention
from .interventions.patches import HeadPatch, Patch, Source, patch_between
from .interventions.path_patches import PathPatch
from .interventions.protocol import Intervention
from .measures.agreement import Agreement, measure_agreement
from .measures.contrast import Contrast
from .measures.intervals import Estimate
from .measures.overlap import compare, depth_thirds, regions
from .measures.scores import Scores
from .measures.selectivity import Selectivity, selectivity
from .model.reward_model import HookedRewardModel, load
from .model.training import TrainingConfig, train
from .neurons import NeuronSet
from .results.provenance import provenance
from .results.store import Results
from .running.activations import stream
from .running.scoring import score, sweep
from .sites import Site

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
