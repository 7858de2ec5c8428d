"""Whose turn it is: each model computes one answer at a time, and of each tab only the newest request counts."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from fastapi import Request

from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.show.live.answers import Cancelled, LiveAnswer

POLL_SECONDS = 0.05  # how often a request that waits looks whether its client is still there


Work = Callable[[Callable[[], bool]], LiveAnswer]  # given a function that says whether it is cancelled


@dataclass(eq=False)
class Job:
    """A request's work. `stopped`: nobody wants it any more; read by the thread that does it. `began`: it has its model's turn."""

    stopped: threading.Event = field(default_factory=threading.Event)
    began: bool = False


class Turns:
    """Each model does one request at a time, in a thread; of each tab, the newest alone."""

    def __init__(self, models: Mapping[str, HookedRewardModel]) -> None:
        self._locks = {name: asyncio.Lock() for name in models}
        self._newest: dict[tuple[str, str], Job] = {}

    async def run(self, request: Request, model: str, tab: str, work: Work) -> LiveAnswer | None:
        """What `work(cancelled)` returns; None where a newer request came, or the client went."""
        job = Job()
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

    async def _turn(self, model: str, job: Job, work: Work) -> LiveAnswer | None:
        async with self._locks[model]:
            if job.stopped.is_set():
                return None
            job.began = True
            with suppress(Cancelled):
                return await asyncio.to_thread(work, job.stopped.is_set)
