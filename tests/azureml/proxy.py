"""A CONNECT proxy on loopback: the names of Azure lead to the stand-in, all others nowhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from urllib.parse import urlsplit


class Proxy:
    """Maps every name that `is_known` to `port` of this machine."""

    def __init__(self, is_known: Callable[[str], bool], port: int) -> None:
        self.refused: list[str] = []
        """Names that somebody asked for and was not led to."""
        self._is_known = is_known
        self._port = port
        self._clients: dict[int, asyncio.StreamWriter] = {}
        """By the port that the stand-in sees, the writer to the client behind it."""

    async def start(self) -> int:
        """Listen; the port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = server
        return int(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the port and every connection."""
        self._server.close()
        for port in list(self._clients):
            self.drop(port)
        await self._server.wait_closed()

    def drop(self, port: int) -> None:
        """Reset the client whose requests reach the stand-in from `port`."""
        if (client := self._clients.get(port)) is not None:
            client.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target, _ = head.split(" ", 2)
            name = (target if method == "CONNECT" else urlsplit(target).netloc).split(":")[0]
            if method == "CONNECT" and self._is_known(name):
                await self._connect(reader, writer)
            else:
                self.refused.append(name)
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        port = int(to_server.get_extra_info("sockname")[1])
        self._clients[port] = writer
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_pump(reader, to_server), _pump(from_server, writer))
        finally:
            del self._clients[port]
            to_server.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()
