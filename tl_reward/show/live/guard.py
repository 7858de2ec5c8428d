"""Which requests the live page's server answers: those of its own page, of this user, and of bounded size."""

import logging
import secrets

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tl_reward.show.page.blocks import policy

MAX_BODY = 256 * 1024  # bytes
MOST_AT_WORK = 64  # requests, of all tabs together


_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the page's address holds the token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


# The page takes the token out of its address, and keeps it for its tab. Loaded again, without the token in its address, it is this that
# comes, and asks for the page with the token.
_AGAIN = """<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">
<title>tl-reward</title><p>Open the address that tl-reward serve printed.</p><script>
let token = null;
try { token = sessionStorage.getItem("tl_reward token"); } catch {} // a browser may forbid it
if (token) fetch("/", { headers: { Authorization: `Bearer ${token}` } }).then(async (answer) => {
  if (!answer.ok) return;
  const page = await answer.text();
  document.open();
  document.write(page);
  document.close();
});
</script>"""


_TOO_LARGE = f"a request may have {MAX_BODY:,} bytes"


_log = logging.getLogger(__name__)


class Guard:
    """Turns a request away before anything of it is read, counts its body, and puts the headers on every answer (ASGI middleware)."""

    def __init__(self, app: ASGIApp, *, token: str, port: int) -> None:
        self.app, self.token, self._at_work = app, token, 0
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
        if refusal is None and self._at_work >= MOST_AT_WORK:
            refusal = error(503, f"{MOST_AT_WORK} requests are at work already; try again")
        if refusal is not None:
            await refusal(scope, receive, answer)
            return
        self._at_work += 1
        try:
            await self.app(scope, read, answer)
        except ClientDisconnect:
            return
        except Exception:
            _log.exception("a request failed")
            if started:
                raise
            await error(500, "the server failed; its terminal says why")(scope, receive, answer)
        finally:
            self._at_work -= 1

    def _refusal(self, request: Request) -> Response | None:
        headers, own = request.headers, [f"http://{host}" for host in self.hosts]
        if len(headers.getlist("host")) != 1 or headers["host"] not in self.hosts:
            return error(421, f"this server is {' or '.join(self.hosts)}")
        if not set(headers.getlist("origin")) <= set(own):
            return error(403, "requests of other origins are refused")
        if request.scope["path"] == "/" and "authorization" not in headers:
            if "token" not in request.query_params:
                return HTMLResponse(_AGAIN, headers={"Content-Security-Policy": policy(connect="'self'")})
            if not secrets.compare_digest(request.query_params["token"].encode(), self.token.encode()):
                return PlainTextResponse("The token is wrong: open the address that tl-reward serve printed.", 403)
        elif not secrets.compare_digest(headers.get("authorization", "").encode(), f"Bearer {self.token}".encode()):
            return error(403, "the token is missing or wrong")
        length = headers.get("content-length", "0")
        return error(413, _TOO_LARGE) if not length.isdecimal() or int(length) > MAX_BODY else None


def error(status: int, text: str) -> Response:
    return JSONResponse({"error": " ".join(text.split())}, status)
