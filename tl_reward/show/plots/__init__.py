"""Figures of a run: `Results` in, plotly `Figure` out. Nothing is shown or written here, and no model is needed."""

from tl_reward.show.plots.effects import agreement_bars, attribution_scatter, effect_intervals, set_bars, tension_scatter
from tl_reward.show.plots.neurons import activation_histogram, layer_sums, neuron_effects, quantity_map, region_bars
from tl_reward.show.plots.patching import (
    lens_curves,
    model_patching_curves,
    patch_heads,
    patch_profile,
    patch_tokens,
    patched_accuracy,
    token_curves,
)
from tl_reward.show.plots.repair import repair_evidence, repair_path, repair_shifts
from tl_reward.show.plots.rewards import ablated_rewards
from tl_reward.show.plots.runs import ablation_curves, accuracy_bars, layer_profile, margin_histogram, neuron_map, overlap_bars, top_neurons

__all__ = [
    "ablated_rewards",
    "ablation_curves",
    "accuracy_bars",
    "activation_histogram",
    "agreement_bars",
    "attribution_scatter",
    "effect_intervals",
    "layer_profile",
    "layer_sums",
    "lens_curves",
    "margin_histogram",
    "model_patching_curves",
    "neuron_effects",
    "neuron_map",
    "overlap_bars",
    "patch_heads",
    "patch_profile",
    "patch_tokens",
    "patched_accuracy",
    "quantity_map",
    "region_bars",
    "repair_evidence",
    "repair_path",
    "repair_shifts",
    "set_bars",
    "tension_scatter",
    "token_curves",
    "top_neurons",
]
