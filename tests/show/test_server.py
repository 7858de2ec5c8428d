"""The live page's back end: numbers against the functions that it is made of, refusals, and cancelled work, over a real server."""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from helpers.partial_runs import put

from tl_reward.analyses.attribution import attribute
from tl_reward.analyses.discovery import Discovery
from tl_reward.cli.options import Running
from tl_reward.cli.serve import ServeCommand, models_of
from tl_reward.data.pairs import PreferencePair, parse_transcript
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import MeanAblation, ScaleAblation, ZeroAblation
from tl_reward.interventions.patches import Patch, Source
from tl_reward.measures.names import StatisticName
from tl_reward.model import embedded
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.results.record_neurons import record_discovery
from tl_reward.results.store import Results
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score
from tl_reward.show.live import server
from tl_reward.show.live.answers import Cancelled, EditKind, LiveAnswer, LiveEdit, LiveRequest, compute
from tl_reward.show.live.connections import make_server
from tl_reward.show.live.guard import MAX_BODY
from tl_reward.show.live.turns import Turns
from tl_reward.show.neuron_columns import mean_of
from tl_reward.sites import Site, UnitSite

PROMPT, CHOSEN, REJECTED = "May I?", "Yes, with pleasure.", "No é."
TRANSCRIPTS = [parse_transcript(f"\n\nHuman: {PROMPT}\n\nAssistant: {side}") for side in (CHOSEN, REJECTED)]
PAIR = PreferencePair("p", TRANSCRIPTS[0], TRANSCRIPTS[1])
REQUEST = LiveRequest(PROMPT, CHOSEN, REJECTED)
NEURONS = NeuronSet([(0, 3), (1, 7), (1, 20)])
MEAN = torch.linspace(-1, 1, 2 * 48).view(2, 48)
EDITS: dict[EditKind, Callable[[Any], Any]] = {
    "zero": lambda model: ZeroAblation(NEURONS),
    "mean": lambda model: MeanAblation(NEURONS, MEAN),
    "scale": lambda model: ScaleAblation(NEURONS, -2.5),
    "patch": lambda model: Patch(Source(model), NEURONS, within_pair=True),
}
TOKEN = "correct"
BODY = {"model": "tiny", "prompt": PROMPT, "chosen": CHOSEN, "rejected": REJECTED, "tab": "one", "top": 3}


def rewards(found: Any) -> list[float]:
    return [found.chosen, found.rejected, found.margin]


def expected(model: Any, *interventions: Any) -> list[float]:
    scores = score(model, [PAIR], interventions=list(interventions))
    return [float(each[0]) for each in (scores.chosen, scores.rejected, scores.margin)]


def plain(answer: LiveAnswer) -> Any:
    return json.loads(json.dumps(answer.to_json()))


def has_no_hook(model: Any) -> bool:
    return not any(point._forward_hooks or point._backward_hooks for point in model.hook_points())


# What a request computes


@pytest.mark.parametrize("kind", EDITS)
def test_rewards_are_those_of_score(tiny, kind):
    answer = compute(tiny, replace(REQUEST, edits=(LiveEdit(NEURONS, kind, -2.5),), top=0), mean=MEAN)
    assert rewards(answer.clean) == pytest.approx(expected(tiny), abs=1e-5)
    assert rewards(answer.edited) == pytest.approx(expected(tiny, EDITS[kind](tiny)), abs=1e-5)
    assert answer.edited is not None
    assert abs(answer.edited.margin - answer.clean.margin) > 1e-3 and answer.top == () and has_no_hook(tiny)


def test_edits_apply_in_their_order(tiny):
    kinds: list[EditKind] = ["mean", "patch", "scale"]
    found = {}
    for order in (kinds, kinds[::-1]):
        answer = compute(tiny, replace(REQUEST, edits=tuple(LiveEdit(NEURONS, kind, -2.5) for kind in order), top=0), mean=MEAN)
        found[order[0]] = rewards(answer.edited)
        assert found[order[0]] == pytest.approx(expected(tiny, *(EDITS[kind](tiny) for kind in order)), abs=1e-5)
    assert found["mean"] != pytest.approx(found["scale"], abs=1e-3)


@pytest.mark.parametrize("kind", [None, *EDITS])
def test_activations_are_those_of_a_cache(tiny, kind):
    edits = (LiveEdit(NEURONS, kind, -2.5),) if kind else ()
    answer = compute(tiny, replace(REQUEST, edits=edits, neuron=(1, 7), top=0), mean=MEAN)
    rows = encode_for(tiny, [PAIR]).apart().rows
    caches = [tiny.run_with_cache(torch.tensor([row.ids]))[1][Site(1, "mlp_post").hook_name][0, :, 7] for row in rows]
    for side, row, clean in zip((answer.chosen, answer.rejected), rows, caches, strict=True):
        assert "".join(side.tokens) == tiny.tokenizer.decode(row.ids) and side.response_start == row.response_start
        assert "".join(side.tokens[side.response_start :]).strip() in (CHOSEN, REJECTED)
        assert side.clean == pytest.approx(clean.tolist(), abs=1e-5)
        if kind is None:
            assert side.edited is None
        elif kind == "zero":
            assert side.edited == (0.0,) * len(row.ids)
        elif kind == "mean":
            assert side.edited == pytest.approx([MEAN[1, 7].item()] * len(row.ids))
        else:
            assert side.edited is not None and len(side.edited) == len(row.ids) and side.edited != pytest.approx(side.clean, abs=1e-3)
    if kind == "patch":  # at the read-out, under the patch of layer 0: what the other transcript has there without it
        assert answer.chosen.edited is not None and answer.rejected.clean is not None
        assert answer.chosen.edited[-1] == pytest.approx(answer.rejected.clean[-1], abs=1e-5)


def test_top_neurons_are_those_of_the_attribution(tiny):
    answer = compute(tiny, replace(REQUEST, top=10))
    effect = attribute(tiny, [PAIR]).effect
    order = effect.abs().flatten().sort(descending=True, stable=True).indices[:10].tolist()
    assert [(found.layer, found.neuron) for found in answer.top] == [divmod(at, 48) for at in order]
    assert [found.effect for found in answer.top] == pytest.approx([effect.flatten()[at].item() for at in order], abs=1e-5)
    caches = [tiny.run_with_cache(torch.tensor([row.ids]))[1] for row in encode_for(tiny, [PAIR]).rows]
    for found in answer.top:
        values = torch.cat([cache[Site(found.layer, "mlp_post").hook_name][0, :, found.neuron] for cache in caches])
        assert found.peak == pytest.approx(values[values.abs().argmax()].item(), abs=1e-5)
    everything = compute(tiny, replace(REQUEST, top=96))
    assert len(everything.top) == 96 and plain(everything)["edited"] is None


def test_a_prompt_may_hold_several_turns(tiny):
    turns = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: May I?"
    for prompt in (turns, turns + "\n\nAssistant:"):
        answer = compute(tiny, replace(REQUEST, prompt=prompt, top=0))
        assert "".join(answer.chosen.tokens) == f"{turns}\n\nAssistant: {CHOSEN}"


BAD = {
    "chosen is empty": {"chosen": ""},
    "rejected is empty": {"rejected": " \n"},
    "chosen and rejected are equal": {"rejected": CHOSEN},
    r"the chosen transcript has 2\d\d\d tokens, its prompt included; at most 1024 are allowed": {"chosen": "x" * 2000},
    r"layer must be in \[0, 2\), got 2": {"neuron": (2, 0)},
    r"neuron must be in \[0, 48\), got 48": {"edits": (LiveEdit(NeuronSet([(0, 48)]), "zero"),)},
    "must be at least 0, got": {"neuron": (0, -1)},
    r"top must be in \[0, 96\], got 97": {"top": 97},
    "this run has no means of this model's neurons; tl-reward discover": {"edits": (LiveEdit(NEURONS, "mean"),)},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_requests_are_refused_in_one_line(tiny, message):
    with pytest.raises(InputError, match=message) as caught:
        compute(tiny, replace(REQUEST, **BAD[message]))
    assert "\n" not in str(caught.value) and has_no_hook(tiny)


def test_bad_edits_are_refused():
    with pytest.raises(InputError, match="factor must be finite, got nan"):
        LiveEdit(NEURONS, "scale", float("nan"))
    double: Any = "double"
    with pytest.raises(InputError, match="must be one of zero, mean, scale, patch, got 'double'"):
        LiveEdit(NEURONS, double)


def test_cancelled_work_ends_before_the_next_layer_and_leaves_no_hook(tiny):
    request = replace(REQUEST, edits=(LiveEdit(NEURONS, "patch"),), neuron=(0, 1))
    asked = []
    compute(tiny, request, cancelled=lambda: bool(asked.append(None)))
    total = len(asked)
    clean = compute(tiny, request)
    for last in range(total):  # at every place where it is asked: in the source's run, in each condition, forward and backward
        asked.clear()

        def cancelled(last: int = last) -> bool:
            asked.append(None)
            return len(asked) > last

        with pytest.raises(Cancelled):
            compute(tiny, request, cancelled=cancelled)
        assert len(asked) == last + 1 and has_no_hook(tiny)
    assert total == 8 and compute(tiny, request) == clean


# Over the wire


@contextmanager
def running(models: dict[str, Any]) -> Iterator[httpx.Client]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    app = server.make_app(
        models, "<p>the page</p>", sources={name: f"from {name}" for name in models}, means={"tiny": MEAN}, token=TOKEN, port=port
    )
    own = make_server(app, level="critical")
    thread = threading.Thread(target=own.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
            yield client
    finally:
        own.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client(tiny) -> Iterator[httpx.Client]:
    with running({"tiny": tiny, "bare": tiny_reward_model(seed=1)}) as own:
        yield own


def refused(answer: httpx.Response, status: int, text: str) -> None:
    assert answer.status_code == status and list(answer.json()) == ["error"]
    assert text in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["X-Frame-Options"] == "DENY"


def test_the_page_wants_the_token(client):
    page = httpx.get(client.base_url, params={"token": TOKEN})
    assert page.status_code == 200 and page.text == "<p>the page</p>" and page.headers["Content-Type"].startswith("text/html")
    wanted = {
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
    assert {name: page.headers[name] for name in wanted} == wanted
    again = client.get("/", params={"token": "wrong"})  # as a tab asks that is loaded again
    assert again.status_code == 200 and again.text == "<p>the page</p>"
    none = client.get("/", headers={"Authorization": ""})
    assert none.status_code == 403
    none = httpx.get(client.base_url)
    assert none.status_code == 200 and "the page" not in none.text and "Open the address that" in none.text
    for query in ({"token": ""}, {"token": "wrong"}, {"token": "é"}):
        answer = httpx.get(client.base_url, params=query)
        assert answer.status_code == 403 and len(answer.text.splitlines()) == 1 and "page</p>" not in answer.text
        assert answer.headers["Cache-Control"] == "no-store"


def test_models_are_listed(client):
    shape = {"n_layers": 2, "d_mlp": 48}
    listed = [
        {"name": "tiny", "source": "from tiny", "has_mean": True} | shape,
        {"name": "bare", "source": "from bare", "has_mean": False} | shape,
    ]
    assert client.get("/api/models").json() == {"models": listed}


@pytest.mark.parametrize("kind", EDITS)
def test_an_answer_is_what_compute_gives(client, tiny, kind):
    factor = {"factor": -2.5} if kind == "scale" else {}
    answer = client.post("/api/score", json=BODY | {"edits": [{"neurons": NEURONS.to_json(), "kind": kind} | factor], "neuron": [1, 7]})
    assert answer.status_code == 200
    request = replace(REQUEST, edits=(LiveEdit(NEURONS, kind, -2.5),), neuron=(1, 7), top=3)
    assert answer.json() == plain(compute(tiny, request, mean=MEAN))


def test_strangers_are_turned_away(client):
    port = client.base_url.port
    for path in ("/", "/api/models", "/nothing"):
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", f"127.0.0.1:{port}.evil.example", ""):
            refused(client.get(path, params={"token": TOKEN}, headers={"Host": host}), 421, f"127.0.0.1:{port} or localhost:{port}")
        for origin in ("http://evil.example", f"https://127.0.0.1:{port}", "http://127.0.0.1", "null", ""):
            refused(client.get(path, params={"token": TOKEN}, headers={"Origin": origin}), 403, "other origins")
    for own in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert client.get("/api/models", headers={"Host": own, "Origin": f"http://{own}"}).status_code == 200
    for header in ("", TOKEN, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x"):
        refused(client.get("/api/models", headers={"Authorization": header}), 403, "token")
        refused(client.post("/api/score", json=BODY, headers={"Authorization": header}), 403, "token")
    refused(client.get("/api/models", params={"token": TOKEN}, headers={"Authorization": ""}), 403, "token")
    for path in ("/docs", "/redoc", "/openapi.json", "/api", "/api/score/x"):
        refused(client.get(path), 404, "Not Found")
    refused(client.get("/api/score"), 405, "Method Not Allowed")


def test_large_bodies_are_refused(client):
    large = json.dumps(BODY | {"tab": "x" * MAX_BODY}).encode()
    refused(client.post("/api/score", content=large), 413, "262,144 bytes")
    refused(client.post("/api/score", content=iter([large[:9], large[9:]])), 413, "262,144 bytes")  # in chunks: no Content-Length


def by_hand(model: Any, *messages: Any) -> list[Any]:
    """What the app sends to a POST whose messages, in reverse, are these; the Content-Length says 10."""
    app = server.make_app({"tiny": model}, "", sources={"tiny": ""}, means={}, token=TOKEN, port=80)
    headers = [(b"host", b"127.0.0.1:80"), (b"authorization", f"Bearer {TOKEN}".encode()), (b"content-length", b"10")]
    scope = {"type": "http", "method": "POST", "path": "/api/score", "query_string": b"", "headers": headers, "http_version": "1.1"}
    left, sent = list(messages), []

    async def receive() -> Any:
        return left.pop()  # raises where more is read than there is

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def test_a_content_length_that_lies_is_counted(tiny):
    part = {"type": "http.request", "body": b"x" * 200_000, "more_body": True}
    sent = by_hand(tiny, part, part)
    assert sent[0]["status"] == 413 and b'{"error":' in sent[1]["body"]


def test_a_client_that_hangs_up_before_it_has_said_all_gets_nothing(tiny, caplog):
    assert by_hand(tiny, {"type": "http.disconnect"}, {"type": "http.request", "body": b"{", "more_body": True}) == []
    assert caplog.records == []


EDIT = {"neurons": [[0, 1]], "kind": "zero"}
REFUSED: dict[str, tuple[Any, int, str]] = {
    "cut short": (b'{"model": "ti', 400, "Invalid JSON"),
    "nothing": (b"", 400, "Invalid JSON"),
    "half a surrogate": (json.dumps(BODY | {"chosen": "\ud800"}).encode(), 400, "Invalid JSON"),
    "not UTF-8": (b'{"model": "\xff"}', 400, "Invalid JSON"),
    "no object": (b"[]", 422, "Input should be an object"),
    "a missing field": ({key: BODY[key] for key in BODY if key != "tab"}, 422, "tab: Field required"),
    "an extra key": (BODY | {"more": 1}, 422, "more: Extra inputs are not permitted, got '1'"),
    "an extra key of an edit": (BODY | {"edits": [EDIT | {"by": 2}]}, 422, "edits.0.by: Extra inputs"),
    "text as a number": (BODY | {"top": "20"}, 422, "top: Input should be a valid integer, got '20'"),
    "too many": (BODY | {"top": 201}, 422, "top: Input should be less than or equal to 200, got '201'"),
    "long text": (BODY | {"prompt": "x" * 20_001}, 422, "prompt: String should have at most 20000 characters"),
    "many edits": (BODY | {"edits": [EDIT] * 51}, 422, "edits: List should have at most 50 items"),
    "many neurons": (BODY | {"edits": [EDIT | {"neurons": [[0, 1]] * 2001}]}, 422, "edits.0.neurons: List should have at most 2000 items"),
    "an unknown kind": (BODY | {"edits": [EDIT | {"kind": "double"}]}, 422, "edits.0.kind: Input should be 'zero', 'mean', 'scale' or"),
    "no number": (
        json.dumps(BODY | {"edits": [EDIT | {"factor": float("nan")}]}).encode(),
        422,
        "edits.0.factor: Input should be a finite",
    ),
    "infinity": (json.dumps(BODY | {"edits": [EDIT | {"factor": float("inf")}]}).encode(), 422, "edits.0.factor: Input should be a finite"),
    "no finite reward": (BODY | {"edits": [EDIT | {"kind": "scale", "factor": 1e300}]}, 422, "reward is not finite"),
    "out of range": (BODY | {"edits": [EDIT | {"neurons": [[0, 48]]}]}, 422, "neuron must be in [0, 48), got 48"),
    "far out of range": (BODY | {"neuron": [10**30, 0]}, 422, "neuron.0: Input should be less than 1000000000"),
    "thousands of digits": (BODY | {"top": 10**4000}, 422, "top: Input should be less than or equal to 200"),
    "negative": (BODY | {"neuron": [-1, 0]}, 422, "must be at least 0, got (-1, 0)"),
    "an empty side": (BODY | {"chosen": " "}, 422, "chosen is empty"),
    "an over-long side": (BODY | {"chosen": "x" * 3000}, 422, "tokens, its prompt included; at most 1024 are allowed"),
    "no means": (BODY | {"model": "bare", "edits": [EDIT | {"kind": "mean"}]}, 422, "tl-reward discover"),
    "an unknown model": (BODY | {"model": "none"}, 404, "no model 'none'; there are tiny, bare"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_bodies_are_refused_in_one_line(client, tiny, case):
    body, status, text = REFUSED[case]
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    refused(client.post("/api/score", **sent), status, text)
    assert has_no_hook(tiny)


def test_an_error_of_ours_tells_nothing(client, monkeypatch):
    monkeypatch.setattr(server, "compute", lambda *args, **kwargs: 1 / 0)
    answer = client.post("/api/score", json=BODY)
    refused(answer, 500, "the server failed")
    assert "division" not in answer.text and "Traceback" not in answer.text


# Work that nobody waits for


class Gate:
    """Holds the model in its first layer until the request that runs is cancelled, or `open` is set."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layers: list[int] = []
        self.requests: list[str] = []
        self.arrived: list[str] = []  # tabs, as their requests come to wait for their turn, and as they have an answer
        self.left: list[str] = []
        self.open = threading.Event()
        self.cancelled: Callable[[], bool] = lambda: False
        for layer, block in enumerate(model.blocks):
            monkeypatch.setattr(block.mlp.act_fn, "act_fn", self._slowed(layer, block.mlp.act_fn.act_fn))
        monkeypatch.setattr(server, "compute", self._compute)
        run = Turns.run

        async def seen(turns: Any, request: Any, model: str, tab: str, work: Any) -> Any:
            self.arrived.append(tab)
            answer = await run(turns, request, model, tab, work)
            self.left.append(tab)
            return answer

        monkeypatch.setattr(Turns, "run", seen)

    def _compute(self, model: Any, request: LiveRequest, *, mean: Any, cancelled: Callable[[], bool]) -> Any:
        self.requests.append(request.chosen)
        self.cancelled = cancelled
        return compute(model, request, mean=mean, cancelled=cancelled)

    def _slowed(self, layer: int, act_fn: Callable[..., Any]) -> Callable[..., Any]:
        def slow(pre: Any) -> Any:
            self.layers.append(layer)
            until(lambda: self.open.is_set() or self.cancelled())
            return act_fn(pre)

        return slow


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def post_later(client: httpx.Client, **changes: Any) -> Any:
    """A POST in a thread; `wait()` gives its answer."""
    found: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: found.append(client.post("/api/score", json=BODY | changes)))
    thread.start()

    def wait() -> httpx.Response:
        thread.join(15)
        return found[0]

    return wait


def connect_and_send(client: httpx.Client, **changes: Any) -> socket.socket:
    body = json.dumps(BODY | changes).encode()
    connection = socket.create_connection(("127.0.0.1", client.base_url.port))
    head = f"POST /api/score HTTP/1.1\r\nHost: {client.base_url.netloc.decode()}\r\nAuthorization: Bearer {TOKEN}\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


@pytest.fixture
def gated(monkeypatch) -> Iterator[tuple[httpx.Client, Gate, Any]]:
    model = tiny_reward_model()
    gate = Gate(model, monkeypatch)
    with running({"tiny": model, "bare": tiny_reward_model(seed=1)}) as client:
        try:
            yield client, gate, model
        finally:
            gate.open.set()


def test_a_client_that_hangs_up_stops_its_work(gated):
    client, gate, model = gated
    connection = connect_and_send(client)
    until(lambda: gate.layers == [0])
    connection.close()
    until(gate.cancelled)
    gate.open.set()
    answer = client.post("/api/score", json=BODY | {"chosen": "Other."})  # waits until the turn of the first is over
    assert answer.status_code == 200 and gate.requests == [CHOSEN, "Other."]
    assert gate.layers[:2] == [0, 0] and has_no_hook(model)  # layer 1 of the first request never ran


def test_a_newer_request_of_the_tab_takes_the_place_of_an_older_one(gated):
    client, gate, model = gated
    first = post_later(client)
    until(lambda: gate.layers == [0])
    second = post_later(client, chosen="Second.")
    refused(first(), 409, "a newer request came")
    until(lambda: gate.layers == [0, 0])
    # While the second runs: of another tab one waits, and is replaced; of a third one waits, and hangs up.
    third = post_later(client, chosen="Third.", tab="two")
    until(lambda: "two" in gate.arrived)
    connection = connect_and_send(client, chosen="Nobody.", tab="three")
    until(lambda: "three" in gate.arrived)
    fourth = post_later(client, chosen="Fourth.", tab="two")
    refused(third(), 409, "a newer request came")  # before its turn
    connection.close()
    until(lambda: "three" in gate.left)
    gate.open.set()
    assert second().status_code == 200 and fourth().status_code == 200
    assert gate.requests == [CHOSEN, "Second.", "Fourth."] and has_no_hook(model)


def test_requests_at_once_get_their_own_answers(gated, tiny):
    client, gate, _ = gated
    sides = [f"Answer {i}." for i in range(4)]
    waiting = [post_later(client, chosen=side, tab=side, model=model) for side in sides for model in ("tiny", "bare")]
    until(lambda: len(gate.layers) > 0)
    gate.open.set()
    answers = [wait().json() for wait in waiting]
    models = [tiny, tiny_reward_model(seed=1)]
    assert answers == [plain(compute(model, replace(REQUEST, chosen=side, top=3))) for side in sides for model in models]


# The command


def test_the_server_prints_its_address_and_ends_with_ctrl_c(tiny, capsys):
    found: list[Any] = []

    def visit() -> None:
        try:
            until(lambda: bool(found.append(capsys.readouterr().out) or "".join(found).count("\n") == 2))
            address = "".join(found).splitlines()[0].removeprefix("Live page: ")
            found[:] = [address, httpx.get(address, timeout=15)]
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=visit)
    thread.start()
    server.serve({"tiny": tiny}, "<p>here</p>", sources={"tiny": ""}, means={})
    thread.join()
    address, page = found
    assert address.startswith("http://127.0.0.1:") and page.text == "<p>here</p>"
    assert capsys.readouterr() == ("", "")  # no log, so no token in it


def test_a_port_that_is_taken_is_said(tiny):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match=r"port \d+ of 127\.0\.0\.1: .*in use"):
        server.serve({"tiny": tiny}, "", sources={"tiny": ""}, means={}, port=taken.getsockname()[1])


def run_of(folder: Path, model: str, *, neurons: int = 48) -> Path:
    sides: dict[tuple[UnitSite, StatisticName], torch.Tensor] = {
        ("mlp_post", "mean"): torch.stack([MEAN[:, :neurons], MEAN[:, :neurons] + 1])
    }
    results = Results()
    record_discovery(results, model, "pairs", Discovery(by_side=sides, pairs=("a",), tokens=3))
    return results.save(folder)


def test_the_command_serves_the_models_of_the_run(tmp_path, tiny, monkeypatch):
    served: list[Any] = []
    loaded: list[str] = []
    monkeypatch.setattr("tl_reward.show.page.build_page", lambda results, *, live: f"page {live}")
    monkeypatch.setattr(server, "serve", lambda *args, **kwargs: served.append((args, kwargs)))
    monkeypatch.setattr(Running, "load", lambda self, source: loaded.append(source) or tiny)
    run = run_of(tmp_path / "run", "mixed")
    ServeCommand((run,), port=7).run()
    ((models, page), options) = served[0]
    assert (models, page, options["port"]) == ({"mixed": tiny}, "page True", 7) and loaded == [str(embedded.ADAPTERS / "mixed")]
    assert options["means"]["mixed"] == pytest.approx(MEAN + 0.5, abs=1e-6)
    ServeCommand((run,), models=("some/model",)).run()
    assert served[1][0][0] == {"model": tiny} and served[1][1]["means"] == {} and loaded[1] == "some/model"
    with pytest.raises(InputError, match=r"the run's mixed has \(2, 40\) layers and neurons, the one at .* has \(2, 48\)"):
        ServeCommand((run_of(tmp_path / "narrow", "mixed", neurons=40),)).run()
    with pytest.raises(InputError, match=r"no model of this run is where it was \(mine\); give them as --models NAME=MODEL"):
        ServeCommand((run_of(tmp_path / "other", "mine"),)).run()


def test_models_are_found_in_every_section():
    results = Results()
    put(results, "scores", "helpful · pairs", {"model": "helpful"})
    put(results, "tension", "mixed · pairs", {"model": "mixed"})
    put(results, "overlap", "mean at mlp_post", {"sets": {}})
    assert list(models_of(results)) == ["helpful", "mixed"] and mean_of(results, "mixed") is None


def test_models_are_where_the_run_says(tmp_path):
    results = Results(
        provenance={"models": {"mine": {"path": str(tmp_path)}, "gone": {"path": str(tmp_path / "gone")}, "odd": {"path": 3}}}
    )
    for name in ("mine", "gone", "odd"):
        put(results, "scores", f"{name} · pairs", {"model": name})
    assert models_of(results) == {"mine": str(tmp_path)}


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    for module in ("server", "connections"):
        monkeypatch.delitem(sys.modules, f"tl_reward.show.live.{module}")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"the live page needs uvicorn: pip install 'tl_reward\[serve\]'"):
        ServeCommand((tmp_path,)).run()
