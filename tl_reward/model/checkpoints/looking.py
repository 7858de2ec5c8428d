"""What is known of a checkpoint before its weights are read: from its config and the headers of its files."""

from collections.abc import Set
from pathlib import Path
from typing import Any, cast

from transformers import AutoModelForSequenceClassification

from tl_reward.arguments import check_argument
from tl_reward.errors import InputError
from tl_reward.model import architectures
from tl_reward.model.checkpoints.adapters import Adapter, read_adapter
from tl_reward.model.checkpoints.folders import HubOptions, hf_config, local_folder, name_of
from tl_reward.model.checkpoints.quiet import quietly
from tl_reward.model.checkpoints.stored import Stored, check_stored, stored_weights
from tl_reward.model.heads.layouts import SCORE, VOCABULARY, Layout, recognise
from tl_reward.model.heads.reading import stored_output_names


@quietly()
def check_reward_model(name_or_path: str | Path, *, base: str | Path | None = None, head: str | None = None) -> dict[str, Any]:
    """Says no before another model is run for an hour: raises InputError where `load_reward_model` would, but for what only the numbers
    tell. It reads configs and headers alone, and gives the fields of the model's TransformerLens config."""
    name = name_of(name_or_path)
    folder = local_folder(name, {})
    adapter = read_adapter(folder, name)
    if adapter is None:
        config, stored, layout = looked_at(folder, name, head)
        may_lack, apart = read_apart(layout, config, stored)
        if may_lack:
            take_the_columns_of(stored, config)
        check_stored(stored, config, name, AutoModelForSequenceClassification, may_lack, apart)
    else:
        check_no_head(head, name)
        base_name, base_folder = base_of(adapter, name, base, {})
        config, stored = base_config(adapter, base_folder, name, base_name)
        own_head = frozenset({"score.weight"} if adapter.has_head else ())
        check_stored(stored, config, base_name, AutoModelForSequenceClassification, own_head)
        config.vocab_size = adapter.vocabulary or config.vocab_size
    return architectures.lens_config(config)


@quietly()
def outputs_of(name_or_path: str | Path, *, base: str | Path | None = None) -> tuple[str, ...]:
    """The names of a reward model's outputs, from its config and the headers of its files: what `outputs` of the loaded model will be. A
    language model gets one. Raises InputError where there is no model, or an adapter without a head on a base without one."""
    name = name_of(name_or_path)
    folder = local_folder(name, {})
    adapter = read_adapter(folder, name)
    if adapter is not None:
        if adapter.has_head:
            return ("reward",)
        base_name, base_folder = base_of(adapter, name, base, {})
        config, stored = base_config(adapter, base_folder, name, base_name)
        return output_names(SCORE, config, stored)
    config = hf_config(folder, name)
    stored = stored_weights(folder, config, name)
    return output_names(layout_of(stored, config, name) if stored.head else None, config, stored)


def is_adapter(name_or_path: str | Path) -> bool:
    """Whether a checkpoint is a PEFT adapter. Raises InputError where there is none, or an adapter that cannot be merged."""
    name = name_of(name_or_path)
    return read_adapter(local_folder(name, {}), name) is not None


def check_reward_head(config: Any, class_name: str) -> None:
    """Raises InputError for a model in memory of an unsupported architecture, or of a class without a head that gives rewards."""
    architectures.architecture_of(config, class_name)
    if not class_name.endswith(("ForSequenceClassification", "ForTokenClassification")):
        raise InputError(f"found {class_name}; a reward model is a *ForSequenceClassification (from_base adds a fresh head)")


def looked_at(folder: Path, name: str, asked: str | None = None) -> tuple[Any, Stored, Layout | None]:
    """A whole model's config, what its files hold, and the layout of its head. Raises InputError where the two do not agree on it."""
    config = hf_config(folder, name)
    stored = stored_weights(folder, config, name)
    layout = layout_of(stored, config, name, asked)
    if layout is SCORE:
        _count_outputs(config, stored.head["score.weight"].shape[0], name)
    return config, stored, layout


def layout_of(stored: Stored, config: Any, name: str, asked: str | None = None) -> Layout | None:
    """The layout of a checkpoint's head; None where it is that of the class which its config names, and its files lack it."""
    if asked is not None:
        check_argument("head", asked, str)
        if stored.head:
            raise InputError(
                f"{name}: head is for language models, and this one has a reward head ({sorted(stored.head)[0]}): leave it out"
            )
        if stored.embedding is None:
            lacks = "the file lacks an output embedding (lm_head.weight)"
            raise InputError(f"{name}: {lacks}, and config.json does not say that it is the input embedding (tie_word_embeddings)")
        return VOCABULARY
    return recognise({key: header.shape for key, header in stored.head.items()}, config, name)


def _count_outputs(config: Any, count: int, name: str) -> None:
    """The weights decide how many outputs there are, unless the config says so too: two without a name is what silence means."""
    said = list((config.id2label or {}).values())
    if len(said) == count:
        return
    if said != ["LABEL_0", "LABEL_1"]:
        raise InputError(f"{name}: found {len(said)} outputs in config.json ({', '.join(map(str, said[:4]))}), and {count} in score.weight")
    config.num_labels = count


def output_names(layout: Layout | None, config: Any, stored: Stored) -> tuple[str, ...]:
    shapes = {key: header.shape for key, header in stored.head.items()}
    return stored_output_names(layout, config, shapes) if layout and shapes else ("reward",)


def read_apart(layout: Layout | None, config: Any, stored: Stored) -> tuple[Set[str], Set[str]]:
    """What Hugging Face's class may lack, since its head is replaced (nothing: it is not), and the weights that it has no place for."""
    if layout is None or (layout is SCORE and not getattr(config, "normalize_reward", False)):
        own_class = not (config.architectures or [""])[0].endswith("ForSequenceClassification")  # Hugging Face's has no place for a bias
        return frozenset(), {"score.bias"} & stored.head.keys() if own_class else frozenset()
    return {"score.weight"}, stored.head.keys()


def take_the_columns_of(stored: Stored, config: Any) -> None:
    """Makes Hugging Face's class, whose head is replaced, one that its weights go into. What the outputs are called is lost by it."""
    config.num_labels = stored.head["score.weight"].shape[0] if "score.weight" in stored.head else 1


def check_no_head(head: str | None, name: str) -> None:
    if head is not None:
        raise InputError(f"{name}: head is for language models, and this is an adapter, which brings its head")


def base_of(adapter: Adapter, name: str, base: str | Path | None, hub: HubOptions) -> tuple[str, Path]:
    """What an adapter's base is called, and where it is. Raises InputError where it is not there, with what to say then."""
    base_name = str(base or adapter.config.base_model_name_or_path)
    try:
        # The revision is the adapter's; its base has revisions of its own.
        return base_name, local_folder(base_name, cast(HubOptions, {key: value for key, value in hub.items() if key != "revision"}))
    except InputError as error:
        here = "" if base else "; where it is elsewhere, say so with base=…"
        raise InputError(f"{name} is an adapter, and its base was not found: {error}{here}") from None


def base_config(adapter: Adapter, folder: Path, name: str, base_name: str) -> tuple[Any, Stored]:
    """The config of an adapter's base, and what its files hold. Raises InputError where neither has a reward head, or the base one of its
    own kind: which of what it computes the adapter was trained with, no file says."""
    config = hf_config(folder, base_name)
    try:
        stored = stored_weights(folder, config, base_name)
        layout = layout_of(stored, config, base_name) if stored.head or not adapter.has_head else None
    except InputError as error:
        if adapter.has_head:
            raise
        helps = 'train it with modules_to_save=["score"], or give the reward model that it was trained on with base=…'
        raise InputError(f"{name}: {adapter.lack_of_head}, and its base has none ({error}); {helps}") from None
    if layout not in (None, SCORE) or "score.bias" in stored.head or getattr(config, "normalize_reward", False):
        raise InputError(
            f"{name}: its base {base_name} has a head of its own kind, which no adapter is merged onto: merge it with PEFT, and save that"
        )
    if adapter.has_head:
        config.num_labels = 1
    elif layout is SCORE:
        _count_outputs(config, stored.head["score.weight"].shape[0], base_name)
    return config, stored
