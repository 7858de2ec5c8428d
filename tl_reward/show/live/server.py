"""The server of the live page: the page, and what its models compute, for this machine and this user alone.

Whoever reaches it can run the models and read the run. So it binds 127.0.0.1 and wants the token that it prints, from other users' programs
too. A stranger's web page in the same browser is told apart by Host (its name may have been pointed at 127.0.0.1) and by Origin.
"""

import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from torch import Tensor

from tl_reward import parallel
from tl_reward.errors import InputError
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.show.live.answers import EditKind, LiveEdit, LiveRequest, compute
from tl_reward.show.live.connections import make_server
from tl_reward.show.live.guard import Guard, error
from tl_reward.show.live.turns import Turns

_STRICT = ConfigDict(extra="forbid", strict=True)

Text = Annotated[str, Field(max_length=20_000)]
Name = Annotated[str, Field(max_length=200)]
Place = Annotated[int, Field(gt=-(10**9), lt=10**9)]


class EditBody(BaseModel):
    model_config = _STRICT
    neurons: Annotated[list[tuple[Place, Place]], Field(max_length=2_000)]
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
    neuron: tuple[Place, Place] | None = None
    top: Annotated[int, Field(ge=0, le=200)] = 20
    tab: Name

    def request(self) -> LiveRequest:
        edits = tuple(LiveEdit(NeuronSet(edit.neurons), edit.kind, edit.factor) for edit in self.edits)
        return LiveRequest(self.prompt, self.chosen, self.rejected, edits, self.neuron, self.top)


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
    turns = Turns(models)

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
    with listener, suppress(KeyboardInterrupt):
        make_server(app).run(sockets=[listener])


def _first_of(wrong: ValidationError) -> str:
    """The first thing that is wrong with a body, and where."""
    first = wrong.errors()[0]
    place = ".".join(map(str, first["loc"]))
    try:
        got = "" if first["type"] in ("missing", "json_invalid") else f", got {str(first['input'])[:60]!r}"
    except ValueError:  # Python writes no number of more than 4,300 digits
        got = ", got a number of thousands of digits"
    return f"{place + ': ' if place else ''}{first['msg']}{got}"
