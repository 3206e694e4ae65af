"""Misbehaviour on command: refuse, throttle, stall, or drop the connection."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from starlette.responses import JSONResponse, Response


class Kind(Enum):
    """What becomes of a request."""

    ANSWER = auto()
    SLOW = auto()
    HOLD = auto()
    DROP = auto()
    LOSE_REPLY = auto()


@dataclass
class Fault:
    """Meets requests whose path contains `where`; `left` of them, or all."""

    kind: Kind
    where: str
    left: int | None
    delay: float = 0.0
    answer: Callable[[], Response] | None = None


class Faults:
    """What a test has switched on, in order; the first that fits a request counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._quota: _Quota | None = None
        self._resets = 0

    def reset(self) -> None:
        """Behave from now on; requests that are held are dropped."""
        with self._lock:
            self._faults.clear()
            self._quota = None
            self._resets += 1

    def status(self, code: int, where: str = "/mlflow/", times: int | None = None) -> None:
        """Answer `code` and do nothing."""
        self._add(Fault(Kind.ANSWER, where, times, answer=lambda: problem(code)))

    def throttle(
        self, retry_after: float | None = 1, where: str = "/mlflow/", times: int | None = None
    ) -> None:
        """Answer 429, with ``Retry-After`` unless that is None, and do nothing."""
        self._add(Fault(Kind.ANSWER, where, times, answer=lambda: throttled(retry_after)))

    def quota(self, requests: int, seconds: float, retry_after: float | None = 1) -> None:
        """429 to what exceeds so many requests to MLflow's API in so many seconds."""
        with self._lock:
            self._quota = _Quota(requests, seconds, retry_after)

    def slow(self, delay: float, where: str = "/mlflow/", times: int | None = None) -> None:
        """Wait `delay` seconds before acting."""
        self._add(Fault(Kind.SLOW, where, times, delay))

    def stall(self, where: str = "/mlflow/", times: int | None = None) -> None:
        """Take the request and never answer."""
        self._add(Fault(Kind.HOLD, where, times))

    def drop(self, where: str = "/mlflow/", times: int | None = None) -> None:
        """Drop the connection and do nothing."""
        self._add(Fault(Kind.DROP, where, times))

    def lose_reply(self, where: str = "/mlflow/", times: int | None = None) -> None:
        """Act, then drop the connection without a reply."""
        self._add(Fault(Kind.LOSE_REPLY, where, times))

    def meeting(self, path: str) -> Fault | None:
        """The fault that a request to `path` meets now."""
        with self._lock:
            for fault in self._faults:
                if fault.where in path and fault.left != 0:
                    fault.left = None if fault.left is None else fault.left - 1
                    return fault
            if self._quota and "/mlflow/" in path and self._quota.is_exceeded(time.monotonic()):
                after = self._quota.retry_after
                return Fault(Kind.ANSWER, path, 1, answer=lambda: throttled(after))
        return None

    async def until_reset(self) -> None:
        """Return once a test has switched everything off."""
        resets = self._resets
        while resets == self._resets:  # noqa: ASYNC110 - a test turns it from another thread
            await asyncio.sleep(0.05)

    def _add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)


class _Quota:
    def __init__(self, requests: int, seconds: float, retry_after: float | None) -> None:
        self._requests = requests
        self._seconds = seconds
        self.retry_after = retry_after
        self._accepted: list[float] = []

    def is_exceeded(self, now: float) -> bool:
        self._accepted = [at for at in self._accepted if at > now - self._seconds]
        if len(self._accepted) >= self._requests:
            return True
        self._accepted.append(now)
        return False


def throttled(retry_after: float | None) -> Response:
    """The service's 429."""
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    return problem(429, "Received too many requests in a short amount of time.", headers)


def problem(
    code: int,
    message: str = "An internal error of the service.",
    headers: dict[str, str] | None = None,
) -> Response:
    """An error in the service's camelCase form, which has no ``error_code``."""
    kind = {401: "UserError", 403: "UserError", 404: "UserError", 429: "TooManyRequests"}
    inner = {"code": "AuthorizationError", "innerError": None} if code == 401 else None
    body = {
        "error": {
            "code": kind.get(code, "ServiceError" if code >= 500 else "UserError"),
            "severity": None,
            "message": message,
            "messageFormat": None,
            "messageParameters": None,
            "referenceCode": None,
            "detailsUri": None,
            "target": None,
            "details": [],
            "innerError": inner,
            "debugInfo": None,
        },
        "correlation": {"operation": "0" * 32, "request": "0" * 16},
        "environment": "eastus",
        "location": "eastus",
        "time": "2026-01-01T00:00:00.0000000+00:00",
        "componentName": "mlflow",
    }
    return JSONResponse(body, code, headers)
