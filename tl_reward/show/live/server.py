"""The server of the live page: the page, and what its models compute, for this machine and this user alone.

Whoever reaches it can run the models and read the run. So it binds 127.0.0.1 and wants the token that it prints, from other users' programs
too. A stranger's web page in the same browser is told apart by Host (its name may have been pointed at 127.0.0.1) and by Origin.
"""

import asyncio
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from tl_reward import parallel
from tl_reward.errors import InputError
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.show.live.answers import Cancelled, EditKind, LiveAnswer, LiveEdit, LiveRequest, compute
from tl_reward.sites import NeuronSet

MAX_BODY = 256 * 1024  # bytes
POLL_SECONDS = 0.05  # how often a request that waits looks whether its client is still there

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the page's address holds the token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_TOO_LARGE = f"a request may have {MAX_BODY:,} bytes"
_STRICT = ConfigDict(extra="forbid", strict=True)
_log = logging.getLogger(__name__)

Text = Annotated[str, Field(max_length=20_000)]
Name = Annotated[str, Field(max_length=200)]
Work = Callable[[Callable[[], bool]], LiveAnswer]  # given a function that says whether it is cancelled


class EditBody(BaseModel):
    model_config = _STRICT
    neurons: Annotated[list[tuple[int, int]], Field(max_length=2_000)]
    kind: EditKind
    factor: Annotated[float, Field(allow_inf_nan=False)] = 1.0


class ScoreBody(BaseModel):
    """A `LiveRequest`, the model that it is for, and the tab that it comes from: of each tab only the newest request counts."""

    model_config = _STRICT
    model: Name
    prompt: Text
    chosen: Text
    rejected: Text
    edits: Annotated[list[EditBody], Field(max_length=50)] = []
    neuron: tuple[int, int] | None = None
    top: Annotated[int, Field(ge=0, le=200)] = 20
    tab: Name

    def request(self) -> LiveRequest:
        edits = tuple(LiveEdit(NeuronSet(edit.neurons), edit.kind, edit.factor) for edit in self.edits)
        return LiveRequest(self.prompt, self.chosen, self.rejected, edits, self.neuron, self.top)


class Guard:
    """Turns a request away before anything of it is read, counts its body, and puts the headers on every answer (ASGI middleware)."""

    def __init__(self, app: ASGIApp, *, token: str, port: int) -> None:
        self.app, self.token = app, token
        self.hosts = [f"127.0.0.1:{port}", f"localhost:{port}"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        size, started = 0, False

        async def read() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY:
                raise HTTPException(413, _TOO_LARGE)
            return message

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(Request(scope))
        if refusal is not None:
            await refusal(scope, receive, answer)
            return
        try:
            await self.app(scope, read, answer)
        except ClientDisconnect:
            return
        except Exception:
            _log.exception("a request failed")
            if started:
                raise
            await error(500, "the server failed; its terminal says why")(scope, receive, answer)

    def _refusal(self, request: Request) -> Response | None:
        headers, own = request.headers, [f"http://{host}" for host in self.hosts]
        if len(headers.getlist("host")) != 1 or headers["host"] not in self.hosts:
            return error(421, f"this server is {' or '.join(self.hosts)}")
        if not set(headers.getlist("origin")) <= set(own):
            return error(403, "requests of other origins are refused")
        if request.scope["path"] == "/":
            if not secrets.compare_digest(request.query_params.get("token", "").encode(), self.token.encode()):
                return PlainTextResponse("The token is missing or wrong: open the address that tl-reward serve printed.", 403)
        elif not secrets.compare_digest(headers.get("authorization", "").encode(), f"Bearer {self.token}".encode()):
            return error(403, "the token is missing or wrong")
        length = headers.get("content-length", "0")
        return error(413, _TOO_LARGE) if not length.isdecimal() or int(length) > MAX_BODY else None


@dataclass(eq=False)
class _Job:
    """A request's work. `stopped`: nobody wants it any more; read by the thread that does it. `began`: it has its model's turn."""

    stopped: threading.Event = field(default_factory=threading.Event)
    began: bool = False


class _Turns:
    """Each model does one request at a time, in a thread; of each tab, the newest alone."""

    def __init__(self, models: Mapping[str, HookedRewardModel]) -> None:
        self._locks = {name: asyncio.Lock() for name in models}
        self._newest: dict[tuple[str, str], _Job] = {}

    async def run(self, request: Request, model: str, tab: str, work: Work) -> LiveAnswer | None:
        """What `work(cancelled)` returns; None where a newer request came, or the client went."""
        job = _Job()
        older, self._newest[tab, model] = self._newest.get((tab, model)), job
        if older is not None:
            older.stopped.set()
        turn = asyncio.create_task(self._turn(model, job, work))
        try:
            while not turn.done() and (job.began or not job.stopped.is_set()):
                await asyncio.wait([turn], timeout=POLL_SECONDS)
                if await request.is_disconnected():
                    job.stopped.set()
            return await turn if job.began else None
        finally:
            job.stopped.set()
            if not job.began:  # else the turn goes on until its thread has stopped
                turn.cancel()
            if self._newest.get((tab, model)) is job:
                del self._newest[tab, model]

    async def _turn(self, model: str, job: _Job, work: Work) -> LiveAnswer | None:
        async with self._locks[model]:
            if job.stopped.is_set():
                return None
            job.began = True
            with suppress(Cancelled):
                return await asyncio.to_thread(work, job.stopped.is_set)


def make_app(
    models: Mapping[str, HookedRewardModel],
    page: str,
    *,
    sources: Mapping[str, str],
    means: Mapping[str, Tensor],
    token: str,
    port: int,
) -> FastAPI:
    """The live page and its API. Every error of the API is {"error": "one line"}.

    Args:
        page: the HTML that GET / answers with.
        sources: where each model came from, so that its user sees which one answers.
        means: each neuron's mean at "mlp_post", [layer, neuron], of the models that the run has it of.
        token: what the page's address and the API's Authorization header must hold.
        port: the port of 127.0.0.1 that the app is reached at.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, token=token, port=port)
    turns = _Turns(models)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, refused: HTTPException) -> Response:
        return error(refused.status_code, refused.detail)

    @app.get("/")
    async def index() -> Response:
        return HTMLResponse(page)

    @app.get("/api/models")
    async def list_models() -> Response:
        shapes = {name: {"n_layers": model.cfg.n_layers, "d_mlp": model.cfg.d_mlp} for name, model in models.items()}
        about = [{"name": name, "source": sources[name], "has_mean": name in means} | shape for name, shape in shapes.items()]
        return JSONResponse({"models": about})

    @app.post("/api/score")
    async def score(request: Request) -> Response:
        try:
            body = ScoreBody.model_validate_json(await request.body())
        except ValidationError as wrong:
            return error(400 if wrong.errors()[0]["type"] == "json_invalid" else 422, _first_of(wrong))
        if body.model not in models:
            return error(404, f"no model {body.model!r}; there are {', '.join(models)}")
        try:
            work = partial(compute, models[body.model], body.request(), mean=means.get(body.model))
            answer = await turns.run(request, body.model, body.tab, lambda cancelled: work(cancelled=cancelled))
        except InputError as refused:
            return error(422, str(refused))
        return JSONResponse(answer.to_json()) if answer is not None else error(409, "a newer request came")

    return app


def serve(
    models: Mapping[str, HookedRewardModel], page: str, *, sources: Mapping[str, str], means: Mapping[str, Tensor], port: int = 0
) -> None:
    """Serves the live page on 127.0.0.1 until Ctrl-C, and prints its address. Port 0: any that is free.

    Raises:
        InputError: the port is taken, or not for this user; several processes run.
    """
    parallel.require_one("the live page")
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as refused:
        raise InputError(f"port {port} of 127.0.0.1: {refused.strerror}; --port 0 takes one that is free") from None
    port, token = listener.getsockname()[1], secrets.token_urlsafe(24)
    app = make_app(models, page, sources=sources, means=means, token=token, port=port)
    print(f"Live page: http://127.0.0.1:{port}/?token={token}\nCtrl-C ends it.", flush=True)
    # No access log: it would print the token.
    config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="off", ws="none", proxy_headers=False)
    with listener, suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def error(status: int, text: str) -> Response:
    return JSONResponse({"error": " ".join(text.split())}, status)


def _first_of(wrong: ValidationError) -> str:
    """The first thing that is wrong with a body, and where."""
    first = wrong.errors()[0]
    place = ".".join(map(str, first["loc"]))
    got = "" if first["type"] in ("missing", "json_invalid") else f", got {str(first['input'])[:60]!r}"
    return f"{place + ': ' if place else ''}{first['msg']}{got}"
