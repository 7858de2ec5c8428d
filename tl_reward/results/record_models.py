"""Which model a run means by a name: a name is a folder's last part, and two folders may end alike."""

from typing import Any

from tl_reward.data.text import given_template
from tl_reward.measures.agreement import Precision
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.results.disk.models import compare, known
from tl_reward.results.sections import made
from tl_reward.results.store import Results


def record_model(results: Results, label: str, model: HookedRewardModel, *, precision: Precision | None = None) -> None:
    """Keeps in a run's provenance which model it calls `label`: path, architecture, sizes, a hash of the weights, and where its reward is
    read. `check_model` and `Results.merge` compare with that.

    Args:
        precision: how the run's figures of it were made, where they were made alike; of an entry that says otherwise, its own counts.

    Raises:
        InputError: the run calls another model by that name.
    """
    models = results.provenance.setdefault("models", {})
    compare(label, known(models, label), _told_of(model), "this run holds another model of that name: use another name for one")
    models[label] = _told_of(model) | dict(made(precision))


def check_model(results: Results, label: str, model: HookedRewardModel, *, other_model: bool = False) -> None:
    """Refuses a model for which rankings, effects, means or sets of a run are not. Runs written before models were recorded tell nothing,
    and pass.

    Args:
        label: what the run calls the model.
        other_model: take them all the same.

    Raises:
        InputError: the run's `label` has other weights, or another shape or architecture.
    """
    if not other_model:
        helps = "its neurons are not this one's; with other_model=True (--other-model) they are taken all the same"
        compare(label, known(results.provenance.get("models"), label), _told_of(model), helps)


def _told_of(model: HookedRewardModel) -> dict[str, Any]:
    template = given_template(model.tokenizer)
    return {**model.origin.to_json(), "readout": model.readout, **({"template": template} if template else {})}
