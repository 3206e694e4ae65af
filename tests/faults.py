"""A reverse proxy before a real server, whose misbehaviour is switched while it runs."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass(frozen=True)
class Request:
    """A request as it reached the proxy, whatever became of it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """A reply on its way to the client."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


Behaviour = Callable[["_Handler", Request], None]


class FaultyProxy:
    """Stands at `url` before the server at `upstream`; passes everything on until told otherwise.

    A switch counts for requests that arrive after it, and ends the wait of those that are held.
    """

    def __init__(self, upstream: str) -> None:
        self.requests: list[Request] = []
        """Everything that arrived, in order."""
        self._upstream = upstream
        self._behave: Behaviour = _pass
        self._demanded: str | None = None
        self._switched = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self._listen()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()

    def pass_on(self) -> None:
        """Forward to the server and give back its reply."""
        self._switch(_pass)

    def refuse(self) -> None:
        """Close the port and every connection: "connection refused"."""
        self._switch(_drop)
        self._stop_listening()

    def black_hole(self) -> None:
        """Accept everything and never answer."""
        self._switch(_hold)

    def status(self, code: int, retry_after: str | int | None = None, path: str = "") -> None:
        """Answer `code` in MLflow's error form, and forward only what has no `path` in its own."""
        headers = () if retry_after is None else (("Retry-After", str(retry_after)),)

        def answer(handler: _Handler, request: Request) -> None:
            if path in request.path:
                handler.send(_error(code, headers))
            else:
                _pass(handler, request)

        self._switch(answer)

    def html(self, code: int = 200) -> None:
        """Answer with a page, as captive portals and sign-in pages do; forward nothing."""
        page = b"<!DOCTYPE html><html><title>Sign in</title></html>"
        self._answer(Reply(code, page, (("Content-Type", "text/html"),)))

    def garble(self, body: bytes) -> None:
        """Answer 200 with a body that is not MLflow's; forward nothing."""
        self._answer(Reply(200, body, (("Content-Type", "application/json"),)))

    def lose_reply(self) -> None:
        """Let the server act, then drop the connection without its reply."""
        self._switch(_lose)

    def cut(self) -> None:
        """Let the server act, then give the first half of its body and drop the connection."""
        self._switch(_cut)

    def reset(self) -> None:
        """Let the server act, then reset the connection (RST) in place of its reply."""
        self._switch(_reset)

    def slow(self, delay: float, path: str = "") -> None:
        """Wait `delay` seconds, then forward; at once where the path does not contain `path`."""

        def wait(handler: _Handler, request: Request) -> None:
            if path in request.path:
                self._switched.wait(delay)
            _pass(handler, request)

        self._switch(wait)

    def demand(self, authorization: str | None) -> None:
        """Answer 401 to whatever comes without this header, from now on; None lets all in."""
        self._demanded = authorization

    def admits(self, request: Request) -> bool:
        """Whether a request has the credential that is demanded."""
        return self._demanded in (None, request.headers.get("Authorization"))

    def count(self, path: str = "") -> int:
        """How many requests arrived whose path contains `path`."""
        return sum(path in request.path for request in self.requests)

    def forward(self, request: Request) -> Reply:
        """The real server's reply."""
        upstream = urlsplit(self._upstream)
        connection = http.client.HTTPConnection(str(upstream.hostname), upstream.port, timeout=30)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        with contextlib.closing(connection):
            connection.request(request.method, request.path, request.body, headers)
            reply = connection.getresponse()
            passed = [(k, v) for k, v in reply.getheaders() if k.lower() not in _HOP_BY_HOP]
            return Reply(reply.status, reply.read(), tuple(passed))

    def _answer(self, reply: Reply) -> None:
        def behave(handler: _Handler, _: Request) -> None:
            handler.send(reply)

        self._switch(behave)

    def _switch(self, behave: Behaviour) -> None:
        self._behave = behave
        self._switched.set()
        self._switched = threading.Event()
        if self._server is None:
            self._listen()

    def _listen(self) -> None:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", self._port), handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def _stop_listening(self) -> None:
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A client that left in the middle is nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def setup(self) -> None:
        super().setup()
        self.proxy._sockets.add(self.connection)

    def finish(self) -> None:
        self.proxy._sockets.discard(self.connection)
        super().finish()

    def send(self, reply: Reply, length: int | None = None) -> None:
        """Give the client the first `length` bytes of a reply (default: all) as if it were all."""
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body[:length])

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, dict(self.headers.items()), body)
        self.proxy.requests.append(request)
        behave = self.proxy._behave if self.proxy.admits(request) else _deny
        behave(self, request)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's names

    def log_message(self, *_: Any) -> None:
        """The tests read `requests` instead."""


def _pass(handler: _Handler, request: Request) -> None:
    try:
        reply = handler.proxy.forward(request)
    except OSError:  # the server is down: so are we
        handler.close_connection = True
        return
    handler.send(reply)


def _error(code: int, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """An error as MLflow says it."""
    body = b'{"error_code": "FAULT", "message": "a fault of the test"}'
    return Reply(code, body, (("Content-Type", "application/json"), *headers))


def _deny(handler: _Handler, _: Request) -> None:
    handler.send(_error(401))


def _drop(handler: _Handler, _: Request) -> None:
    handler.close_connection = True


def _hold(handler: _Handler, request: Request) -> None:
    handler.proxy._switched.wait()
    _drop(handler, request)


def _lose(handler: _Handler, request: Request) -> None:
    handler.proxy.forward(request)
    _drop(handler, request)


def _cut(handler: _Handler, request: Request) -> None:
    reply = handler.proxy.forward(request)
    handler.send(reply, length=len(reply.body) // 2)
    _drop(handler, request)


def _reset(handler: _Handler, request: Request) -> None:
    handler.proxy.forward(request)
    at_once = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    handler.rfile.close()  # which keeps the connection open as long as it is open itself
    handler.connection.close()
    handler.close_connection = True
