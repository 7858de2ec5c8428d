"""What of the reward model could stand on TransformerLens' `TransformerBridge`, which stays where 4.0 deletes `HookedTransformer`?

    python docs/decisions/0001-spike/transformer_bridge.py

With TransformerLens 3.9 it compares the bridge with our model, and keeps our numbers in --reference. With 4.x, where our model cannot be
imported, it compares with those, and the speed with the bridge as it is. "repaired" means: with a change of `repaired_bridge.py` that a
backend would make. About 10 minutes on one core, 10 seconds with `--turns 0`.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, get_args

import torch
import transformers
from repaired_bridge import Hooks, at_readout, bridge_of, fold_final_norm, handed_down, resume, run_packed, token_rewards
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from tl_reward.data.batches.packing import pack
from tl_reward.data.encoding import Row
from tl_reward.model import checkpoints
from tl_reward.sites import Site, SiteKind

try:
    from tl_reward.model import HookedRewardModel
except ImportError:  # TransformerLens 4
    HookedRewardModel = None  # type: ignore

SHAPE = {"vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
LLAMA = SHAPE | {"num_key_value_heads": 2}
TINY = {
    "llama": ("LlamaConfig", LLAMA),
    "gpt2": ("GPT2Config", {"vocab_size": 257, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512}),
    "gemma2": ("Gemma2Config", LLAMA | {"head_dim": 16, "sliding_window": 4, "query_pre_attn_scalar": 24}),
    # The rest of what we support, for the rewards alone.
    "mistral": ("MistralConfig", LLAMA | {"sliding_window": 4}),
    "qwen2": ("Qwen2Config", LLAMA),
    "qwen3": ("Qwen3Config", LLAMA | {"head_dim": 16}),
    "olmo2": ("Olmo2Config", LLAMA),
    "gpt_neox": ("GPTNeoXConfig", SHAPE),
}
THREE = ("llama", "gpt2", "gemma2")
LAYER = 1


def tiny(name: str) -> PreTrainedModel:
    """A random classifier of one output, whose norms are not 1 and whose biases are not 0."""
    kind, shape = TINY[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**shape, pad_token_id=0, bos_token_id=None, eos_token_id=0, num_labels=1, use_cache=False)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.requires_grad_(False)


def padded(lengths: Sequence[int], side: str, vocab: int = 257) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    tokens, mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long), torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for i, length in enumerate(lengths):
        place = slice(0, length) if side == "right" else slice(max(lengths) - length, None)
        tokens[i, place], mask[i, place] = torch.randint(1, vocab, (length,)), 1
    return tokens, mask


def measured(model: Any, tokens: Tensor, mask: Tensor, names: dict[str, str], hand_back: bool = True) -> dict[str, dict[str, Tensor]]:
    """At each site: the activations of real tokens, the rewards with half of them, and the gradient of the sum of rewards."""
    result: dict[str, dict[str, Tensor]] = {"value": {}, "edited": {}, "gradient": {}}

    def look(kind: str) -> Callable[..., Tensor | None]:
        def fn(activation: Tensor, hook: Any) -> Tensor | None:
            result["value"][kind] = activation.detach()[mask.bool()]
            activation.register_hook(lambda gradient: result["gradient"].update({kind: gradient[mask.bool()]}))
            return activation if hand_back else None

        return fn

    def leaf(activation: Tensor, hook: Any) -> Tensor:
        return activation.detach().requires_grad_()

    with torch.enable_grad():
        hooks = [("blocks.0.hook_resid_pre", leaf), *((name, look(kind)) for kind, name in names.items())]
        at_readout(token_rewards(model, tokens, hooks, attention_mask=mask), mask).sum().backward()
    for kind, name in names.items():
        halved = token_rewards(model, tokens, [(name, lambda activation, hook: activation / 2)], attention_mask=mask)
        result["edited"][kind] = at_readout(halved, mask)
    return result


def row(item: str, model: str, what: str, figure: Any, *, limit: float = 1e-4) -> None:
    if isinstance(figure, float):
        verdict, figure = "works" if figure < limit else "DIFFERS", f"{figure:.1e}"
    elif isinstance(figure, Exception):
        verdict, figure = "IMPOSSIBLE", f"{type(figure).__name__}: {str(figure).splitlines()[0][:70]}"
    else:
        verdict = ""
    print(f"{item:<10} {model:<9} {what:<66} {verdict:<10} {figure}", flush=True)


def gap(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item() if a.shape == b.shape else float("inf")


NAMES = {kind: Site(LAYER, kind).hook_name for kind in get_args(SiteKind)}
RIGHT, LEFT = (padded((20, 13, 7), side) for side in ("right", "left"))
SHARED = [Row((*range(1, 15), *range(start, start + 6)), 14) for start in (40, 60, 80, 100)]  # four transcripts, one prefix of 14 tokens


def our_numbers(hf: PreTrainedModel) -> dict[str, Any]:
    ours = HookedRewardModel.from_hf(hf)
    tokens, mask = RIGHT
    batch = next(pack(SHARED, max_tokens=1000))
    return {
        "rewards": [ours(tokens, attention_mask=mask) for tokens, mask in (RIGHT, LEFT)],
        "sites": measured(ours, tokens, mask, {kind: name for kind, name in NAMES.items() if name in ours.hook_dict}),
        "stopped": ours(tokens, None, attention_mask=mask, stop_at_layer=LAYER),
        "packed": ours(batch.tokens, attention_mask=batch),
        "direction": ours.W_U[:, 0],
        "written": [ours.blocks[LAYER].attn.W_O, ours.blocks[LAYER].mlp.W_out],
    }


def rewards(name: str, hf: PreTrainedModel, reference: dict[str, Any]) -> None:
    try:
        row("1 rewards", name, "wrapping a classifier as it is", "built" if bridge_of(hf, head="lm_head") else "")
    except AttributeError as error:
        row("1 rewards", name, "wrapping a classifier as it is", error)
    bridge = bridge_of(hf)
    one_by_one = torch.cat([hf(tokens[None, keep.bool()]).logits[:, 0] for tokens, keep in zip(*RIGHT, strict=True)])
    for side, (tokens, mask), ours in zip(("right", "left"), (RIGHT, LEFT), reference["rewards"], strict=True):
        got = at_readout(token_rewards(bridge, tokens, attention_mask=mask), mask)
        row("1 rewards", name, f"bridge against Hugging Face one by one, {side} padding", gap(got, one_by_one))
        row("1 rewards", name, f"ours against Hugging Face one by one, {side} padding", gap(ours, one_by_one))


def sites(name: str, hf: PreTrainedModel, reference: dict[str, Any]) -> None:
    for label, repaired in (("", False), ("repaired: ", True)):
        bridge = bridge_of(hf, native=repaired, blocks=repaired)
        names = NAMES | ({"resid_mid": f"blocks.{LAYER}.hook_mid"} if repaired else {})
        got = measured(bridge, *RIGHT, names)
        for what in ("value", "edited", "gradient"):
            item = "4 gradient" if what == "gradient" else "2 sites"
            gaps = {kind: gap(got[what][kind], reference["sites"][what][kind]) for kind in NAMES}
            bad = {kind: f"{value:.1e}" for kind, value in gaps.items() if value >= 1e-4}
            wrong = " ".join(f"{kind} {value}" for kind, value in bad.items())
            row(item, name, f"{label}{what} at {len(NAMES)} sites{', wrong at ' + wrong if wrong else ''}", max(gaps.values()))
    quiet = measured(bridge_of(hf), *RIGHT, NAMES, hand_back=False)["gradient"]
    row("4 gradient", name, "no gradient where the hook hands nothing back", ", ".join(NAMES.keys() - quiet.keys()) or "none")


def layers(name: str, hf: PreTrainedModel, reference: dict[str, Any]) -> None:
    (tokens, mask), bridge = RIGHT, bridge_of(hf)
    stopped = bridge(tokens, attention_mask=mask, stop_at_layer=LAYER)
    row("3 layers", name, f"stop_at_layer={LAYER}", gap(stopped[mask.bool()], reference["stopped"][mask.bool()]))
    ran: list[str] = []
    try:
        below = ("blocks.0.hook_resid_post", lambda activation, hook: ran.append("and it runs the layers below"))
        got = token_rewards(bridge, stopped, [below], attention_mask=mask, start_at_layer=LAYER)
        row("3 layers", name, " ".join([f"start_at_layer={LAYER}", *ran]), gap(at_readout(got, mask), reference["rewards"][0]))
    except NotImplementedError as error:
        row("3 layers", name, f"start_at_layer={LAYER}", error)
    got = resume(bridge, stopped, handed_down(bridge, tokens, attention_mask=mask), LAYER)
    row("3 layers", name, f"repaired: our own loop over its layers from {LAYER}", gap(at_readout(got, mask), reference["rewards"][0]))


def packed(name: str, hf: PreTrainedModel, reference: dict[str, Any]) -> None:
    batch = next(pack(SHARED, max_tokens=1000))
    for what, way, native in (("4-D mask and positions", "mask", False), ("repaired: registered attention function", "registry", True)):
        try:
            row("5 packed", name, what, gap(run_packed(bridge_of(hf, native=native), batch, way), reference["packed"]))
        except (TypeError, ValueError, RuntimeError) as error:
            row("5 packed", name, what, error)
    try:
        row("5 packed", name, "the registry without the repair", gap(run_packed(bridge_of(hf), batch, "registry"), reference["packed"]))
    except (TypeError, ValueError, RuntimeError) as error:
        row("5 packed", name, "the registry without the repair", error)


def head(name: str, hf: PreTrainedModel, reference: dict[str, Any]) -> None:
    tokens, want = RIGHT[0][:1], reference["rewards"][0][:1]
    bridge = bridge_of(hf)
    try:
        bridge.process_weights(center_unembed=False, center_writing_weights=False, fold_value_biases=False)
        got = token_rewards(bridge, tokens)[:, -1]
        row("6 head", name, "process_weights(fold_ln): rewards", gap(got, want))
        row("6 head", name, "process_weights(fold_ln): W_U[:, 0]", gap(bridge.W_U[:, 0], reference["direction"]))
    except Exception as error:
        row("6 head", name, "process_weights(fold_ln)", error)
    bridge = bridge_of(hf)
    fold_final_norm(bridge)
    row("6 head", name, "repaired: own fold, W_U[:, 0]", gap(bridge.W_U[:, 0], reference["direction"]))
    _, cache = bridge.run_with_cache(tokens)
    row("6 head", name, "own fold, rewards", gap(token_rewards(bridge, tokens)[:, -1], want))
    try:
        parts = cache.decompose_resid(apply_ln=True, pos_slice=-1)
        row("6 head", name, "decompose_resid: sum along W_U[:, 0]", gap((parts @ bridge.W_U[:, 0]).sum(0) + bridge.b_U[0], want))
        raw = cache.decompose_resid(apply_ln=False, pos_slice=-1)
        parts = cache.logit_attrs(raw, tokens=torch.zeros(1, dtype=torch.long), pos_slice=-1)
        row("6 head", name, "logit_attrs: sum", gap(parts.sum(0) + bridge.b_U[0], want))
    except Exception as error:
        row("6 head", name, "decompose_resid, logit_attrs", error)
    block = bridge.blocks[LAYER]
    row("6 head", name, "keys of its state dict that Hugging Face's lacks", len(bridge.state_dict().keys() - hf.state_dict().keys()))
    row("6 head", name, "W_O, W_out of a layer", max(map(gap, (block.attn.W_O, block.mlp.W_out), reference["written"])))


def turns(contestants: dict[str, Callable[[], Any]], count: int) -> dict[str, list[float]]:
    """Seconds of each, in turns, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(count + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name] += [time.perf_counter() - start] if turn else []
    return seconds


def compare(what: str, contestants: dict[str, Callable[[], Any]], count: int = 5) -> None:
    """Prints how long each takes over what the first one takes: the median of the turns' ratios, the lowest and the highest."""
    first, seconds = next(iter(contestants)), turns(contestants, count)
    for name, taken in seconds.items():
        ratios = sorted(a / b for a, b in zip(taken, seconds[first], strict=True))
        if name == first:
            row("7 speed", "smollm2", f"{what}: {name}", f"{median(taken):.2g} s")
        else:
            row("7 speed", "smollm2", f"{what}: {name} over {first}", f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def backward(model: Any, tokens: Tensor, mask: Tensor) -> None:
    def leaf(activation: Tensor, hook: Any) -> Tensor:
        return activation.detach().requires_grad_()

    with torch.enable_grad():
        rewards = token_rewards(model, tokens, [("blocks.0.hook_resid_pre", leaf)], attention_mask=mask)
        at_readout(rewards, mask).sum().backward()


def speed(count: int) -> None:
    hf = checkpoints.load_reward_model("helpful", base=None, dtype=torch.float32, hub={}).model.eval().requires_grad_(False)
    hf.config.use_cache = False
    models = {"ours": HookedRewardModel.from_hf(hf)} if HookedRewardModel is not None else {}
    models |= {"bridge": bridge_of(hf), "bridge, repaired": bridge_of(hf, native=True, blocks=True)}
    every = [(f"blocks.{layer}.mlp.hook_post", lambda activation, hook: None) for layer in range(hf.config.num_hidden_layers)]
    for shape, lengths in (("4 rows of up to 128", (128, 110, 90, 64)), ("1 row of 768", (768,))):
        tokens, mask = padded(lengths, "right", hf.config.vocab_size)
        at = {"attention_mask": mask}
        compare(
            f"forward, {shape}",
            {name: partial(token_rewards, model, tokens, **at) for name, model in models.items()}
            | {"Hugging Face": partial(hf, tokens, **at)},
            count,
        )
        compare(
            f"with 30 hooks, {shape}", {name: partial(token_rewards, model, tokens, every, **at) for name, model in models.items()}, count
        )
        compare(f"and backward, {shape}", {name: partial(backward, model, tokens, mask) for name, model in models.items()}, count)

    def attach(model: Any, hooks: Hooks) -> None:
        with model.hooks(fwd_hooks=hooks):
            pass

    for number in (1, 30):
        compare(f"attaching {number}", {name: partial(attach, model, every[:number]) for name, model in models.items()}, count)
    rows = [Row((*range(1, 129), *range(start, start + 64)), 128) for start in range(200, 1400, 100)]
    batch = next(pack(rows, max_tokens=10_000))
    runs = {name: partial(run_packed, models[name], batch, way) for name, way in (("bridge", "mask"), ("bridge, repaired", "registry"))}
    if "ours" in models:
        runs = {"ours": lambda: models["ours"](batch.tokens, attention_mask=batch)} | runs
    compare("12 rows that share 128 tokens", runs, count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, default=Path("runs/transformer_bridge.pt"), help="where our numbers are kept")
    parser.add_argument("--turns", type=int, default=5, help="of each contestant; 0 leaves out the speed")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    print(f"TransformerLens {version('transformer-lens')}, transformers {transformers.__version__}, torch {torch.__version__}")
    models = {name: tiny(name) for name in TINY}
    if HookedRewardModel is not None:
        options.reference.parent.mkdir(exist_ok=True)
        torch.save({name: our_numbers(hf) for name, hf in models.items()}, options.reference)
    reference = torch.load(options.reference, weights_only=True)
    for item in (rewards, sites, layers, packed, head):
        for name, hf in models.items():
            if item is rewards or name in THREE:
                item(name, hf, reference[name])
    if options.turns:
        speed(options.turns)
