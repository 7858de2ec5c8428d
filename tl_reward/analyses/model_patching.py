"""What a reward model lacks and another one of the same shape has: activations of one, set in the other's run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Unpack

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tl_reward.analyses.ablation_curves import AblationCurve, ablation_curve
from tl_reward.analyses.attribution import Attribution, attribute
from tl_reward.analyses.exact_effects import Comparison, compare_with_exact
from tl_reward.data.reading import Reading
from tl_reward.errors import InputError, summary_of
from tl_reward.interventions.patches import Patch, patch_between
from tl_reward.interventions.protocol import Edit
from tl_reward.measures.frames.columns import SHARE, DataFrame, estimates
from tl_reward.measures.intervals import Estimate, bootstrap_mean
from tl_reward.measures.json_types import ModelPatchingJson
from tl_reward.measures.scores import Scores, right
from tl_reward.model.heads.outputs import Output, weights_of
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.batches.batching import Pairs, encode_for
from tl_reward.running.options import RunOptions, checked
from tl_reward.running.scoring import score
from tl_reward.sites import UnitSite, Where


@dataclass(frozen=True, eq=False)
class ModelPatching:
    """A model patched from a source, over the share of neurons that is patched.

    Attributes:
        source: the source's own rewards on the same pairs.
        curve: the patched model's; `clean` is the model by itself, `ranked` the top of a ranking, `random` layer-matched sets.
    """

    source: Scores
    curve: AblationCurve

    def recovered(self, patched: Scores) -> Estimate:
        """Of the pairs that the source has right and the model by itself wrong, the share that the patched model has right; nan where
        there are none.

        Pairs on which the model is just wrong flip under any change: compare with random sets.
        """
        return _share(patched, self.lost())

    def kept(self, patched: Scores) -> Estimate:
        """Of the pairs that the model by itself has right, the share that the patched model still has right."""
        return _share(patched, self.curve.clean.margin > 0)

    def lost(self) -> np.ndarray:
        """[pair]: right in the source and wrong in the model."""
        return (self.source.margin > 0) & (self.curve.clean.margin <= 0)

    @property
    def reading(self) -> Reading | None:
        """How many pairs were given, and how many left out, by reason."""
        return self.curve.reading

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a fraction and draw, over all pairs: `AblationCurve.to_frame`'s columns, and the shares recovered and kept."""
        whole = self.curve.to_frame().query("objective == ''").reset_index(drop=True)
        scored = [self.curve.clean, *(scores for point in self.curve.points for scores in point.scored().values())]
        shares = estimates("recovered", SHARE, [self.recovered(each) for each in scored])
        return whole.assign(**shares, **estimates("kept", SHARE, [self.kept(each) for each in scored]))

    def to_json(self) -> ModelPatchingJson:
        return {
            "clean": self.curve.clean.to_json(),
            "points": [
                {
                    **point.to_json(self.curve.clean),
                    "recovered": self.recovered(point.ranked).to_json_or_none(),
                    "random_recovered": [self.recovered(draw).to_json_or_none()["value"] for draw in point.random],
                    "kept": self.kept(point.ranked).to_json_or_none(),
                    "random_kept": [self.kept(draw).to_json_or_none()["value"] for draw in point.random],
                }
                for point in self.curve.points
            ],
            "source": self.source.to_json(),
            "lost": int(self.lost().sum()),
        }


@checked
def patch_models(
    model: HookedRewardModel,
    source: HookedRewardModel,
    pairs: Pairs,
    ranking: Float[Tensor, "layer neuron"],
    *,
    fractions: Sequence[float] = (0.01, 0.05, 0.2, 1.0),
    draws: int = 3,
    seed: int = 0,
    site: UnitSite = "mlp_post",
    where: Where = "all",
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> ModelPatching:
    """Runs both models on the same tokens, and sets the top neurons' activations in one to the other's.

    The neurons' output weights stay the model's own: where those differ too, all neurons together are not the source's MLPs.

    Args:
        model: the one that is patched, under `interventions` of the options; the source runs without.
        source: its own rewards are of the output that is chosen for it (`source.output`); where it has several and nobody has chosen one,
            of the model's, by name.
        ranking: higher ranks first, such as `gain(...)`, found on other pairs.
        where: the tokens whose activations are replaced; the source reads all tokens.
        site: as in `ablation_curve`, and so are fractions, draws and seed.

    Raises:
        InputError: models that differ in shape, tokenizer or fold, or read rewards at other tokens; a ranking of another shape; a source
            without the model's output.
    """
    own: RunOptions = {**options, "interventions": (), "output": output_of_source(model, source)}
    encoded = encode_for(model, pairs, **options)
    edit = patch_edit(model, source, site=site, where=where)
    curve = ablation_curve(
        model, encoded, ranking, fractions=fractions, draws=draws, seed=seed, site=site, edit=edit, progress=progress, **options
    )
    same = replace(encoded, how=None)  # the source reads the same tokens, whatever its own chat template
    return ModelPatching(score(source, same, progress=f"{progress}, source" if progress else None, **own), curve)


def output_of_source(model: HookedRewardModel, source: HookedRewardModel) -> Output:
    """By which output a source is read that nobody has chosen one for: the model's, by name. None leaves it as it is: the choice that was
    made, the only output, or what the published source takes, where that is the model's or the model has one output alone.

    Raises:
        InputError: the source has no output of that name, or reads rewards at other tokens than the model.
    """
    for what in ("end", "unread_token"):
        ours, theirs = getattr(model, what), getattr(source, what)
        if ours != theirs:
            raise InputError(f"the models must read rewards at the same token: {what} is {ours} in the model, {theirs} in the source")
    weights = weights_of(model.output, model.outputs)
    if getattr(source, "_output", None) is not None or len(source.outputs) == 1:
        return None
    told = {name: weight for name, weight in zip(model.outputs, weights, strict=True) if weight}
    if len(model.outputs) == 1:
        if source.output is not None:
            return None
        told = None
    try:
        found = weights_of(told, source.outputs)
    except InputError as error:
        raise InputError(f"the source: {error}; or set source.output") from None
    same = source.output is not None and weights_of(source.output, source.outputs) == found
    return None if same else told


def patch_edit(model: HookedRewardModel, source: HookedRewardModel, *, site: UnitSite = "mlp_post", where: Where = "all") -> Edit:
    """From a set of neurons to the patch that takes them from the source: what `ablate_sets` and `set_effects` take as `edit`."""
    shared = patch_between(model, source)
    return partial(Patch, shared, site=site, where=where)


@checked
def gain(
    model: HookedRewardModel,
    source: HookedRewardModel,
    pairs: Pairs,
    *,
    site: UnitSite = "mlp_post",
    where: Where = "all",
    steps: int | None = None,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> Attribution:
    """By how much patching each neuron from the source raises the margin, to first order: attribution patching between models.

    All neurons from one forward and one backward pass of the model, and one forward pass of the source.

    Args:
        where: the tokens that would be patched.
        steps: with a number, the mean gradient on the path from the source's activations to the model's own (`attribute`).
        options: how the model is run (`running.options.RunOptions`).

    Raises:
        InputError: models that differ in shape or tokenizer; as `attribute`.
    """
    found = attribute(model, pairs, site=site, baseline=source, steps=steps, where=where, progress=progress, **options)
    return replace(found, effect=-found.effect)


@checked
def compare_gain_with_exact(
    model: HookedRewardModel,
    source: HookedRewardModel,
    pairs: Pairs,
    gains: Mapping[str, Float[Tensor, "layer neuron"]],
    *,
    site: UnitSite = "mlp_post",
    where: Where = "all",
    top: int = 16,
    random: int = 16,
    seed: int = 0,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> Comparison:
    """Does attribution patching predict what patching a neuron does? Effects are margins *lost* by patching: minus the gain.

    Args:
        gains: by method, what patching each neuron adds to the margin, such as `gain(...).effect`.
        top: how many neurons with the largest gains, in size; of each method.
        random: how many drawn at random from all neurons; at least 3.

    Raises:
        InputError: no gains; models that differ in shape, tokenizer or fold; as `compare_with_exact`.
    """
    if not gains:
        raise InputError("at least one estimate is needed, got none")
    return compare_with_exact(
        model, pairs, {name: -value for name, value in gains.items()}, top=top, random=random, seed=seed,
        kind="patch", site=site, edit=patch_edit(model, source, site=site, where=where), progress=progress, **options,
    )  # fmt: skip


def _share(patched: Scores, of: np.ndarray) -> Estimate:
    if not of.any():
        return Estimate(np.nan, np.nan, np.nan, 0)
    part = patched.take(np.flatnonzero(of).tolist())
    return bootstrap_mean(right(part.margin), part.prompts)
