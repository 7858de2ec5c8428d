"""How much of a server can a stranger hold? Connections are bounded in number and in time, before anything of a request is known.

Any user of this machine can connect, without the token. So a bounded number of connections is open; where one more comes, the oldest goes
that has no request at work. Who is slow to send a request, or to read an answer, is cut off.
"""

import asyncio
import logging
import time
import traceback
from pathlib import Path
from typing import Any, ClassVar

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from tl_reward.errors import first_line
from tl_reward.show.live import guard

MOST = 512  # connections, where the system gives this process so many descriptors
BACKLOG = 64  # taken from the system at once, before any of them can be closed
OWN_FILES = 96  # descriptors that are not connections
SECONDS_TO_SEND = 10.0  # a whole request
SECONDS_TO_READ = 30.0  # more of an answer
SECONDS_SILENT = 60.0  # between two lines of a kind in the log


def most_connections() -> int:
    """As many as the descriptors allow; raises this process's own limit of them, as far as it may."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + BACKLOG + OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST if soft == resource.RLIM_INFINITY else max(8, min(MOST, soft - BACKLOG - OWN_FILES))


class Connection(H11Protocol):
    """uvicorn's, with these bounds."""

    most: ClassVar[int] = MOST
    _timer: asyncio.TimerHandle | None = None
    opened = 0.0

    def connection_made(self, transport: Any) -> None:
        self.opened = time.monotonic()
        others = [each for each in self.connections if isinstance(each, Connection) and not each.at_work]
        if len(self.connections) >= self.most and others:
            oldest = min(others, key=lambda each: each.opened)
            self.connections.discard(oldest)
            oldest.transport.abort()
        super().connection_made(transport)
        if len(self.connections) > self.most:  # all others are at work
            transport.abort()
        else:
            self._wait(SECONDS_TO_SEND)

    @property
    def at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._timer is None and self._sends():  # part of the next request
            self._wait(SECONDS_TO_SEND)
        elif not self._sends() and not self.flow.write_paused:
            self._wait(None)

    def _sends(self) -> bool:
        """Whether a request has begun and is not here in full."""
        return self.conn.their_state is h11.SEND_BODY or (self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait(SECONDS_TO_READ)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wait(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        super().connection_lost(exc)

    def _wait(self, seconds: float | None) -> None:
        """Cuts the connection off after that time; None: not any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


class Server(uvicorn.Server):
    """uvicorn's, that says in one line what fails in its loop, such as a lack of descriptors."""

    async def startup(self, sockets: Any = None) -> None:
        asyncio.get_running_loop().set_exception_handler(_say)
        await super().startup(sockets)


def _say(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    _log.error(context.get("message", "the server's loop failed"), exc_info=error)


class OncePerKind(logging.Filter):
    """Lets one line of a kind through in a minute, and where it failed instead of a traceback: who can make a server fail must not fill its
    disk."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        kind, now = f"{record.msg} {type(error).__name__}", time.monotonic()
        if now - self._last.get(kind, -SECONDS_SILENT) < SECONDS_SILENT:
            return False
        self._last[kind] = now
        if error is not None:
            place = traceback.extract_tb(error.__traceback__)[-1:]
            where = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in place)
            record.msg, record.args = "%s: %s: %s%s", (record.getMessage().strip(), type(error).__name__, first_line(error), where)
            record.exc_info = record.exc_text = None
        return True


_log = logging.getLogger(__name__)
_once = OncePerKind()


def make_server(app: FastAPI, *, level: str = "warning") -> Server:
    """A server of the app, bounded in connections, time and log."""
    bounded = type("BoundedConnection", (Connection,), {"most": most_connections()})
    # No access log: it would print the token.
    config = uvicorn.Config(
        app, http=bounded, backlog=BACKLOG, access_log=False, log_level=level, lifespan="off", ws="none", proxy_headers=False
    )
    for name in ("uvicorn.error", __name__, guard.__name__):
        logging.getLogger(name).addFilter(_once)
    return Server(config)
