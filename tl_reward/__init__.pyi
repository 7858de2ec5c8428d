from .analyses.ablation_curves import AblationCurve, SetAblations, ablate_sets, ablation_curve
from .analyses.attribution import Attribution, attribute, estimate
from .analyses.direct_attribution import DirectAttribution, direct_attribution, token_attribution
from .analyses.discovery import Discovery, discover
from .analyses.exact_effects import Comparison, Effects, compare_with_exact, neuron_effects, set_effects
from .analyses.examples.collect import Examples, collect_examples
from .analyses.model_patching import ModelPatching, compare_gain_with_exact, gain, patch_models
from .analyses.pair_patching import PairPatching, patch_pairs
from .analyses.reward_lens import RewardLens, reward_lens
from .analyses.tension import Tension, tension
from .data.alignment import Alignment, align
from .data.pairs import Message, PreferencePair
from .data.readers import load_pairs, pairs_from, short_name
from .data.text import set_template
from .errors import InputError, one_line_errors
from .interventions.ablations import MeanAblation, ResampleAblation, ScaleAblation, ZeroAblation
from .interventions.folding import with_gates
from .interventions.from_functions import intervention
from .interventions.gates import Gates
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
from .repairing.config import RepairConfig
from .repairing.export import export
from .repairing.repair import repair
from .repairing.result import Repair
from .repairing.splits import halves_by_prompt
from .results.disk.folder import check_run_folder
from .results.found_on import found_on
from .results.provenance import provenance
from .results.record_edits import record_ablation, record_effects, record_repair, record_sets, sets_of
from .results.record_examples import neurons_to_show, record_examples
from .results.record_models import check_model, record_model
from .results.record_neurons import (
    discovery_of,
    ranking_of,
    record_attribution,
    record_discovery,
    record_overlap,
    record_scores,
    record_tension,
)
from .results.record_patching import record_gain, record_lens, record_model_patching, record_patching
from .results.store import Results
from .running.activations import stream
from .running.pair_activations import Activations, activations
from .running.scoring import score, sweep
from .show.page.document import write_page
from .show.run_folder import run_folder
from .show.run_tables import summary
from .sites import Site

__all__ = [
    "AblationCurve",
    "Activations",
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
    "Gates",
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
    "Repair",
    "RepairConfig",
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
    "activations",
    "align",
    "attribute",
    "check_model",
    "check_run_folder",
    "collect_examples",
    "compare",
    "compare_gain_with_exact",
    "compare_with_exact",
    "depth_thirds",
    "direct_attribution",
    "discover",
    "discovery_of",
    "estimate",
    "export",
    "found_on",
    "gain",
    "halves_by_prompt",
    "intervention",
    "load",
    "load_pairs",
    "measure_agreement",
    "neuron_effects",
    "neurons_to_show",
    "one_line_errors",
    "pairs_from",
    "patch_between",
    "patch_models",
    "patch_pairs",
    "provenance",
    "ranking_of",
    "record_ablation",
    "record_attribution",
    "record_discovery",
    "record_effects",
    "record_examples",
    "record_gain",
    "record_lens",
    "record_model",
    "record_model_patching",
    "record_overlap",
    "record_patching",
    "record_repair",
    "record_scores",
    "record_sets",
    "record_tension",
    "regions",
    "repair",
    "reward_lens",
    "run_folder",
    "score",
    "selectivity",
    "set_effects",
    "set_template",
    "sets_of",
    "short_name",
    "stream",
    "summary",
    "sweep",
    "tension",
    "token_attribution",
    "train",
    "with_gates",
    "write_page",
]
