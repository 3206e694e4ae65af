"""The ASGI app of all names: who may enter, which fault is met, and the routes of each name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from email.utils import formatdate
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Host, Router

from tests.azureml.faults import Fault, Faults, Kind, problem
from tests.azureml.ledger import Ledger, Seen

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tests.azureml.tokens import Tokens


class Front:
    """Stands before every route: notes the request and lets a fault have it."""

    def __init__(
        self,
        app: ASGIApp,
        ledger: Ledger,
        faults: Faults,
        *,
        drop: Callable[[int], None],
        now: Callable[[], float],
    ) -> None:
        """`drop` ends the connection that comes from a port; `now` is the service's clock."""
        self._app = app
        self._ledger = ledger
        self._faults = faults
        self._drop = drop
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        is_signed = "authorization" in request.headers
        seen = Seen(request.method, str(request.url.hostname), request.url.path, is_signed)
        self._ledger.requests.append(seen)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                date = formatdate(self._now(), usegmt=True).encode()
                message["headers"] = [*message["headers"], (b"date", date)]
            await send(message)

        if (fault := self._faults.meeting(request.url.path)) is None:
            await self._app(scope, receive, noted)
            return
        seen.fault = fault.kind.name.lower()
        await self._misbehave(fault, scope, receive, noted)

    async def _misbehave(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if fault.kind is Kind.SLOW:
            await asyncio.sleep(fault.delay)
            await self._app(scope, receive, send)
        elif fault.answer is not None:
            await fault.answer()(scope, receive, send)
        else:
            if fault.kind is Kind.HOLD:
                await self._faults.until_reset()
            elif fault.kind is Kind.LOSE_REPLY:
                await self._app(scope, receive, _swallow)
            self._drop(scope["client"][1])
            await Response(status_code=500)(scope, receive, _swallow)


async def _swallow(message: Message) -> None:
    """What nobody gets."""


class Guarded:
    """Lets in who bears a token for one of `audiences`; `free` prefixes need none."""

    def __init__(
        self,
        app: ASGIApp,
        tokens: Tokens,
        audiences: Collection[str],
        free: tuple[str, ...] = (),
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._audiences = audiences
        self._free = free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if not self._free or not request.url.path.startswith(self._free):
            header = request.headers.get("authorization")
            refusal = self._tokens.refusal(header, self._audiences)
            if refusal is not None:
                await problem(401, refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def routed(routes: Iterable[BaseRoute]) -> ASGIApp:
    """An app of `routes`; what is none of them is an empty 404."""
    return Router([*routes], default=_nothing, redirect_slashes=False)


def by_name(apps: dict[str, ASGIApp]) -> Starlette:
    """One app of several names of hosts."""
    return Starlette(routes=[Host(name, app=app) for name, app in apps.items()])


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(status_code=404)(scope, receive, send)
