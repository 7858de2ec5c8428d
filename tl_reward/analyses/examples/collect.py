"""Which transcripts and tokens drive each neuron: its strongest examples, its distribution, and what it goes along with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_reward import parallel
from tl_reward.analyses.examples import passes
from tl_reward.analyses.examples.identity import identity_of
from tl_reward.analyses.examples.kept import Kept
from tl_reward.analyses.examples.passes import DRAWN, NONE, QUANTILES, TOP, Chosen, Details, Peaks, Task
from tl_reward.analyses.examples.saved_state import read_state, write_state
from tl_reward.analyses.examples.words import NEIGHBOURS, Words, WordsOut, cosine_neighbours, read_by, token_text, words_in, words_out
from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.pairs import pair_hash
from tl_reward.data.reading import Reading
from tl_reward.data.text import token_texts
from tl_reward.errors import summary_of
from tl_reward.measures.frames.columns import REWARD, DataFrame, frame
from tl_reward.measures.neuron_statistics import SIDES
from tl_reward.measures.scores import Scores
from tl_reward.model.heads.chosen import check_direction, output_name
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.running.activations import stream
from tl_reward.running.batches.batching import Pairs, encode_for, interventions_of
from tl_reward.running.options import RunOptions, checked
from tl_reward.sites import Where

NeuronSite = Literal["mlp_post", "mlp_gate"]
KINDS = ("top",) * TOP + tuple(f"{100 * share:.0f} %" for share in QUANTILES) + ("random",) * DRAWN


class ExampleTranscript(NamedTuple):
    """A transcript: the pairs that it is part of, with its side and the objective in each ("" for none), its reward, and its tokens."""

    pairs: tuple[str, ...]
    sides: tuple[str, ...]
    objectives: tuple[str, ...]
    reward: float
    tokens: tuple[str, ...]
    response_start: int


class Split(NamedTuple):
    """The transcripts on one side of an objective's pairs, each counted as often as it occurs there."""

    objective: str
    side: str
    transcripts: int


@dataclass(frozen=True, eq=False)
class Examples:
    """What drives the neurons of one reward model. A transcript's *peak* for a neuron is the activation of largest magnitude, with its
    sign, over the tokens that are meant.

    Attributes:
        neurons: those shown in detail; the axis `shown` of tensors is in this order.
        where: the tokens over which peaks, distributions and correlations are taken.
        pairs: the hash of each pair.
        scores: the rewards, from the same pass.
        tokens: how many tokens the histograms count.
        transcripts: those that a neuron refers to; tensors of transcripts index them, with -1 for none.
        top: of every neuron, the transcripts with the largest |peak|, that one first; `top_peak` their peaks, 0 for none.
        example: of shown neurons, one transcript for each of `KINDS`: the top ones, those at quantiles of |peak| among all transcripts
            (by nearest rank), and ones drawn at random. `example_peak` their peaks.
        start: where the neuron's activations at all tokens of that transcript begin in `activation`, which is float16, or float32 where
            that would overflow.
        edge, count: histograms of activations, by split.
        correlated: other shown neurons (indices, -1 for none) with the largest |Pearson correlation| over tokens, `correlation`. That of
            a neuron which never varies is 0.
        cosine_neuron, cosine: (layer, neuron) of any others that write in the most similar or opposite directions.
        words_in: by the weights named in `words_in_of`; see `words.words_in` and `words.words_out`.
    """

    neurons: NeuronSet
    site: NeuronSite
    where: Where
    pairs: tuple[str, ...]
    scores: Scores
    tokens: int
    splits: tuple[Split, ...]
    transcripts: tuple[ExampleTranscript, ...]
    top: Int[Tensor, "rank layer neuron"]
    top_peak: Float[Tensor, "rank layer neuron"]
    example: Int[Tensor, "shown example"]
    example_peak: Float[Tensor, "shown example"]
    start: Int[Tensor, "shown example"]
    activation: Float[Tensor, " flat"]
    edge: Float[Tensor, "shown edge"]
    count: Int[Tensor, "shown split bin"]
    correlated: Int[Tensor, "shown neighbour"]
    correlation: Float[Tensor, "shown neighbour"]
    cosine_neuron: Int[Tensor, "shown neighbour 2"]
    cosine: Float[Tensor, "shown neighbour"]
    words_in_of: Literal["gate", "in"]
    words_in: Words
    words_out: WordsOut | None

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a shown neuron and example: the pairs that its transcript is part of, its reward, its text, and the neuron's peak there."""
        rows = [
            (layer, neuron, KINDS[i], float(self.example_peak[at, i]), self.transcripts[index])
            for at, (layer, neuron) in enumerate(self.neurons)
            for i, index in enumerate(self.example[at].tolist())
            if index >= 0
        ]
        return frame(
            {
                "layer": [row[0] for row in rows],
                "neuron": [row[1] for row in rows],
                "site": self.site,
                "kind": [row[2] for row in rows],
                "peak (activation)": [row[3] for row in rows],
                f"reward ({REWARD})": [row[4].reward for row in rows],
                "pairs": [", ".join(row[4].pairs) for row in rows],
                "sides": [", ".join(row[4].sides) for row in rows],
                "text": ["".join(row[4].tokens) for row in rows],
            }
        )

    @property
    def reading(self) -> Reading | None:
        """How many pairs were given, and how many left out, by reason."""
        return self.scores.reading


@checked
def collect_examples(
    model: HookedRewardModel,
    pairs: Pairs,
    neurons: NeuronSet,
    *,
    site: NeuronSite = "mlp_post",
    where: Where = "response",
    unembedding: Float[Tensor, "d_model vocab"] | None = None,
    saved: Path | None = None,
    seed: int = 0,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> Examples:
    """Two passes over the pairs: the first finds peaks and ranges, the second reads what happens at the examples found.

    Memory is bounded: [rank, layer, neuron] for all neurons, [transcript, shown] for those shown in detail. Where what shown neurons are
    at all tokens is no more than 256 MiB (`kept.KEPT_BYTES`), the first pass keeps it, and the second one does not run the model.

    Args:
        neurons: those to show in detail. Of all others only the top transcripts are found.
        where: "response" by default: the prompt is the same in both transcripts of a pair, and so are peaks there.
        unembedding: of the base language model (`checkpoints.load_unembedding`); without, words out are not computed.
        saved: a file to keep the state in, after every `CHUNK` pairs. A call that was cut short goes on from there, with the same
            result. Delete the file once the result is saved: until then a call gives it again without a pass. What a state has to be of
            to be gone on from: `identity.content_hash` says what it sees of the code of edits.
        seed: of the transcripts drawn at random.
        options: how the model is run (`running.options.RunOptions`).

    Raises:
        InputError: another site; a neuron that the model does not have; a saved state of something else; several processes; a reward that
            is along no single direction; as `activations.stream`.
    """
    parallel.require_one("collect_examples")
    check_direction(model)
    neurons.check_fits(model.cfg.n_layers, int(model.cfg.d_mlp or 0))
    encoded = encode_for(model, pairs, **options)
    words_of = words_out(model, neurons, unembedding) if unembedding is not None else None  # says no before the passes
    task = Task(model, encoded, neurons, site, where, seed, state={})
    identity = identity_of(task, interventions_of(options)) if saved is not None else {}  # it reads all weights
    state, done = read_state(saved, identity, model.cfg.device)
    task.state.update(state)
    chunks, kept = range(0, len(encoded.pairs), passes.CHUNK), Kept(task)

    def run(number: int, sums: Peaks | Details) -> None:
        for i, start in enumerate(chunks, number * len(chunks)):
            if i >= done and sums.sites:
                part = sums.part = passes.part_of(encoded, start)
                last = start + len(part.encoded.pairs)
                which = "" if kept.keeps and number == 0 else f", pass {number + 1} of 2"
                label = f"{progress}{which}, pairs {start + 1}-{last} of {len(encoded.pairs)}" if progress else None
                if isinstance(sums, Peaks) or not kept.show(start, sums):
                    consumer = kept.beside(sums, start) if isinstance(sums, Peaks) else sums
                    stream(model, part.encoded, sums.sites, consumer, whole=True, progress=label, **options)
                write_state(saved, identity, task.state, i + 1)

    run(0, Peaks(task))
    details = Details(task)
    run(1, details)
    return _examples(task, details, words_of)


def _examples(task: Task, details: Details, words_of: WordsOut | None) -> Examples:
    model, encoded, neurons = task.model, task.encoded, task.neurons
    state = {key: value.cpu() for key, value in task.state.items()}
    chosen = Chosen(details.chosen.row.cpu(), details.chosen.start.cpu(), details.chosen.size)
    top = torch.where(state["top"] == NONE, -1, state["top"]).long()
    used = torch.cat([top.flatten(), chosen.row.flatten()]).unique()
    used = used[used >= 0]
    place = torch.full((len(encoded.rows) + 1,), -1)  # the last stands for none
    place[used] = torch.arange(len(used))
    reward = state["reward"]
    chosen_reward, rejected_reward = (reward[list(rows)].tolist() for rows in (encoded.chosen, encoded.rejected))
    shown = torch.arange(len(neurons))[:, None]
    activation = state["activation"]
    length = {"readout": lambda row: 1, "all": lambda row: len(row.ids)}.get(task.where, lambda row: len(row.ids) - row.response_start)
    tokens = sum(length(row) * int(count) for row, count in zip(encoded.rows, encoded.sides.sum((0, 1)), strict=True))
    correlated = _correlated(state["sum"] / tokens, state["product"] / tokens)
    cosine = cosine_neighbours(model, neurons)
    return Examples(
        neurons=neurons,
        site=task.site,
        where=task.where,
        pairs=tuple(pair_hash(pair) for pair in encoded.pairs),
        scores=Scores.of(encoded.pairs, chosen_reward, rejected_reward, encoded.reading, output_name(model)),
        tokens=tokens,
        splits=tuple(
            Split(objective, side, int(count))
            for objective, counts in zip(encoded.objectives, encoded.sides.sum(2), strict=True)
            for side, count in zip(SIDES, counts, strict=True)
        ),
        transcripts=_transcripts(model, encoded, used.tolist(), reward),
        top=place[top],
        top_peak=state["top_peak"],
        example=place[chosen.row],
        example_peak=torch.where(chosen.row < 0, 0.0, state["peak"][chosen.row, shown]),
        start=chosen.start,
        activation=activation.half() if not len(activation) or activation.abs().max() <= 6e4 else activation,
        edge=details.edge.cpu(),
        count=state["count"],
        correlated=correlated.neuron,
        correlation=correlated.value,
        cosine_neuron=cosine.neuron,
        cosine=cosine.value,
        words_in_of=read_by(model),
        words_in=words_in(model, neurons),
        words_out=words_of,
    )


def _transcripts(
    model: HookedRewardModel, encoded: EncodedPairs, rows: list[int], reward: Float[Tensor, " row"]
) -> tuple[ExampleTranscript, ...]:
    parts: dict[int, list[tuple[str, str, str]]] = {row: [] for row in range(len(encoded.rows))}
    for pair, *sides in zip(encoded.pairs, encoded.chosen, encoded.rejected, strict=True):
        for name, row in zip(SIDES, sides, strict=True):
            parts[row].append((pair.id, name, pair.objective or ""))
    tokenizer = model.tokenizer

    def texts(ids: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(token_texts(ids, tokenizer) if tokenizer is not None else (token_text(i, None) for i in ids))

    return tuple(
        ExampleTranscript(
            pairs=tuple(pair for pair, _, _ in parts[row]),
            sides=tuple(side for _, side, _ in parts[row]),
            objectives=tuple(objective for _, _, objective in parts[row]),
            reward=float(reward[row]),
            tokens=texts(encoded.rows[row].ids),
            response_start=encoded.rows[row].response_start,
        )
        for row in rows
    )


class _Correlated(NamedTuple):
    neuron: Int[Tensor, "shown neighbour"]
    value: Float[Tensor, "shown neighbour"]


def _correlated(mean: Float[Tensor, " shown"], square: Float[Tensor, "shown shown"]) -> _Correlated:
    """From the means and the mean products: for each neuron, those with the largest |correlation|."""
    covariance = square - mean[:, None] * mean
    scale = covariance.diagonal().clamp(min=0).sqrt()
    varies = (scale > 0)[:, None] & (scale > 0)
    value = torch.where(varies, covariance / torch.where(varies, scale[:, None] * scale, 1.0), 0.0).clamp(-1, 1)
    order = value.abs().fill_diagonal_(-1).sort(dim=1, descending=True, stable=True).indices[:, :NEIGHBOURS]
    order = order[:, : max(len(mean) - 1, 0)]  # without itself, the last where there are few
    missing = (0, NEIGHBOURS - order.shape[1])
    return _Correlated(torch.nn.functional.pad(order, missing, value=-1), torch.nn.functional.pad(value.gather(1, order), missing).float())
