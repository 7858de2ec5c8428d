"""The live page's server against strangers on the same machine: held connections, slow senders, floods, and bodies that lie."""

import asyncio
import json
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import psutil
import pytest
from helpers.attack import tries

from tl_reward.model.tiny import tiny_reward_model
from tl_reward.show.live import connections, guard, server
from tl_reward.show.live.connections import OncePerKind, make_server, most_connections

TOKEN = "a-token-that-nobody-may-see"
BODY = {"model": "tiny", "prompt": "May I?", "chosen": "Yes.", "rejected": "No.", "tab": "one", "top": 0}


@contextmanager
def serving(*, page: str = "<p>the page</p>") -> Iterator[tuple[httpx.Client, Any]]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    app = server.make_app({"tiny": tiny_reward_model()}, page, sources={"tiny": ""}, means={}, token=TOKEN, port=port)
    own = make_server(app)
    thread = threading.Thread(target=own.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
            yield client, own
    finally:
        own.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving() as (own, _):
        yield own


@pytest.fixture
def lines(caplog) -> Iterator[list[str]]:
    """What the server says, by kind once a minute: each test starts a new minute."""
    connections._once._last.clear()
    found: list[str] = []
    with caplog.at_level(logging.WARNING):
        yield found
    found.extend(record.getMessage() for record in caplog.records)
    assert not any(TOKEN in line for line in found)


def port_of(client: httpx.Client) -> int:
    assert client.base_url.port is not None
    return client.base_url.port


def connected(client: httpx.Client, text: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port_of(client)), timeout=20)
    connection.sendall(text)
    return connection


def said(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionError:
        pass
    return found


def until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


# Held connections


def test_half_open_connections_of_strangers_do_not_block_the_page(monkeypatch, caplog):
    monkeypatch.setattr(connections, "most_connections", lambda: 12)
    monkeypatch.setattr(connections, "SECONDS_TO_SEND", 1000.0)  # so that it is not time that frees a place
    with serving() as (client, own):
        held = [connected(client, b"GET / HTTP/1.1\r\n" if i % 2 else b"") for i in range(tries(60, 400))]
        try:
            answer = client.post("/api/score", json=BODY)
            assert answer.status_code == 200 and len(own.server_state.connections) <= 12
            assert said(held[0]) == b""  # the oldest had to go
        finally:
            for each in held:
                each.close()
    assert len(caplog.records) == 0


def test_slow_senders_and_slow_readers_are_cut_off(monkeypatch):
    monkeypatch.setattr(connections, "SECONDS_TO_SEND", 0.3)
    monkeypatch.setattr(connections, "SECONDS_TO_READ", 0.3)
    with serving(page="x" * 30_000_000) as (client, own):
        host = f"Host: 127.0.0.1:{port_of(client)}\r\n".encode()
        headers = b"POST /api/score HTTP/1.1\r\n" + host + f"Authorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n".encode()
        slow = [b"", b"G", headers, headers + b"\r\n{", b"POST /api/score HTTP/1.1\r\n" + host + b"Content-Length: 9\r\n\r\n{"]
        for start in slow:
            with closing(connected(client, start)) as connection:
                connection.settimeout(0.05)
                began = time.monotonic()
                while time.monotonic() - began < 10:  # a byte now and then keeps nothing open
                    try:
                        if connection.recv(65536) == b"":
                            break
                        connection.sendall(b" ")
                    except TimeoutError:
                        connection.sendall(b" ")
                    except ConnectionError:
                        break
                assert time.monotonic() - began < 8, start
        with closing(connected(client, b"GET / HTTP/1.1\r\n" + host + f"Authorization: Bearer {TOKEN}\r\n\r\n".encode())):
            until(lambda: any(each.at_work or each.flow.write_paused for each in own.server_state.connections))
            until(lambda: not own.server_state.connections)  # it was never read


def test_few_descriptors_mean_fewer_connections(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 256))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: None)
    assert 8 <= most_connections() <= 256 - connections.BACKLOG - 90
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 10**6))
    assert most_connections() == connections.MOST


def test_the_log_has_a_line_a_kind(lines, caplog):
    loop = asyncio.new_event_loop()
    try:
        loop.set_exception_handler(connections._say)
        for _ in range(1000):
            loop.call_exception_handler(
                {"message": "socket.accept() out of system resource 100%", "exception": OSError(24, "Too many open files")}
            )
            guard._log.error("a request failed", exc_info=ZeroDivisionError("division by zero"))
    finally:
        loop.close()
    make_server(server.make_app({}, "", sources={}, means={}, token=TOKEN, port=1))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and "Too many open files" in told[0] and "ZeroDivisionError" in told[1]
    assert all("\n" not in line for line in told) and all(record.exc_info is None for record in caplog.records)
    once = OncePerKind()
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "m %s", ("a",), None)
    assert [once.filter(record) for _ in range(3)] == [True, False, False]


# Requests


def test_garbage_and_strange_requests_get_a_refusal_or_nothing(client, lines):
    generator = random.Random(0)
    host, token = f"Host: 127.0.0.1:{port_of(client)}", f"Authorization: Bearer {TOKEN}"
    targets = (
        "/../../etc/passwd",
        "//etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/../",
        "http://evil.example/",
        "*",
        "/\\..",
        "/?token=",
        "/%00",
    )
    requests = [
        f"{m} {t} HTTP/1.1\r\n{host}\r\n{token}\r\n\r\n" for m in ("GET", "POST", "OPTIONS", "TRACE", "PUT", "DELETE") for t in targets
    ]
    requests += [
        f"CONNECT evil.example:443 HTTP/1.1\r\n{host}\r\n{token}\r\n\r\n",
        f"GET / HTTP/1.1\r\n{token}\r\n\r\n",
        f"GET / HTTP/9.9\r\n{host}\r\n\r\n",
    ]
    requests += [f"GET / HTTP/1.1\r\n{host}\r\n{host}\r\n{token}\r\n\r\n", f"GET / HTTP/1.1\r\n{host}\r\nX: {'y' * 100_000}\r\n\r\n"]
    requests += [
        f"POST /api/score HTTP/1.1\r\n{host}\r\n{token}\r\nContent-Length: {n}\r\n\r\n" for n in ("-1", "1e9", "9" * 30, "0x10", "")
    ]
    requests += [f"GET / HTTP/1.1\r\n{host}\r\n{token}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"]
    raw = [each.encode() for each in requests] + [generator.randbytes(200) + b"\r\n\r\n" for _ in range(tries(30, 2000))]
    for text in raw:
        with closing(connected(client, text)) as connection:
            connection.shutdown(socket.SHUT_WR)
            answer = said(connection)
        status = int(answer[9:12]) if answer else 0
        assert status in (0, 400, 403, 404, 405, 413, 421) or (status == 200 and b"root:" not in answer), (text, answer)
        assert TOKEN.encode() not in answer
    assert client.get("/api/models").status_code == 200


DEEP = b"[" * 100_000
BODIES: dict[str, bytes] = {
    "deep": DEEP,
    "deep and closed": DEEP + b"]" * 100_000,
    "deep in a field": b'{"model":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001,
    "digits": json.dumps(BODY)[:-1].encode() + b', "neuron": [' + b"9" * 20_000 + b", 0]}",
    "digits as top": json.dumps(BODY | {"top": 0}).replace('"top": 0', '"top": ' + "9" * 20_000).encode(),
    "a tiny number": json.dumps(BODY).replace('"top": 0', '"top": 1e-400').encode(),
    "NaN": json.dumps(BODY | {"top": float("nan")}).encode(),
    "Infinity": json.dumps(BODY | {"neuron": [float("inf"), 0]}).encode(),
    "twice": b'{"model": "tiny", "model": "other"}',
    "NUL": json.dumps(BODY | {"model": "\0"}).encode(),
    "a prototype": json.dumps(BODY | {"__proto__": {"model": "x"}}).encode(),
    "many keys": json.dumps(BODY | {f"k{i}": i for i in range(10_000)}).encode(),
    "UTF-16": json.dumps(BODY).encode("utf-16"),
    "a mark": b"\xef\xbb\xbf" + json.dumps(BODY).encode(),
}


@pytest.mark.parametrize("case", BODIES)
def test_bodies_that_lie_are_refused_in_one_line(client, lines, case):
    answer = client.post("/api/score", content=BODIES[case])
    assert answer.status_code in (400, 404, 422), answer.text
    assert list(answer.json()) == ["error"] and "\n" not in answer.json()["error"] and len(answer.text) < 500
    assert client.post("/api/score", json=BODY).status_code == 200


def test_many_requests_at_once_are_each_answered_in_one_way_or_another(client, lines, monkeypatch):
    monkeypatch.setattr(guard, "MOST_AT_WORK", 8)
    monkeypatch.setattr(connections, "SECONDS_TO_SEND", 300.0)  # all of these send from one busy process, and may be slow

    async def ask_all(count: int) -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(base_url=client.base_url, headers=client.headers, timeout=60, limits=limits) as many:
            asked = [many.post("/api/score", json=BODY | {"tab": str(i % 200)}) for i in range(count)]
            return await asyncio.gather(*asked)

    answers = asyncio.run(ask_all(tries(80, 300)))
    kinds = {answer.status_code for answer in answers}
    assert {200, 503} <= kinds <= {200, 409, 503}
    right = client.post("/api/score", json=BODY).json()
    for answer in answers:
        assert answer.json() == right if answer.status_code == 200 else "\n" not in answer.json()["error"]


def test_a_model_that_raises_is_said_and_the_next_request_works(client, monkeypatch, caplog):
    connections._once._last.clear()

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"secret\n{TOKEN}")

    with monkeypatch.context() as patched:
        patched.setattr(server, "compute", fail)
        for _ in range(20):
            answer = client.post("/api/score", json=BODY)
            assert answer.status_code == 500 and "secret" not in answer.text
    assert client.post("/api/score", json=BODY).status_code == 200
    assert len(caplog.records) == 1 and "RuntimeError: secret (" in caplog.records[0].getMessage() and TOKEN not in caplog.text


def test_memory_does_not_grow_with_requests(client):
    def ask(count: int) -> int:
        for i in range(count):
            assert client.post("/api/score", json=BODY | {"tab": f"{count} {i}"}).status_code == 200
        return psutil.Process().memory_info().rss

    before = ask(20)
    assert ask(tries(60, 500)) - before < 20_000_000
