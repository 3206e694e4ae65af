"""Tokens as the service issues and checks them: JWTs that live a while and are for one audience."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

JOB = "azureml"
"""Audience of the token that the service gives a job; ARM does not take it."""
ARM = ("https://management.azure.com", "https://management.core.windows.net/")
DATA_PLANE = (*ARM, "https://ml.azure.com", JOB)


class Tokens:
    """Issues and checks; what a test turns is turned for all that is issued or checked later."""

    def __init__(self, tenant: str) -> None:
        self.issued: list[str] = []
        """Every token, for a test that looks where one was left."""
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._tenant = tenant
        self._serials = itertools.count(1)
        self._last = 0
        self._expired = 0
        self.reset()

    def reset(self) -> None:
        """An hour for every token, as the service gives, by this machine's clock."""
        self.lifetime = 3600.0
        """Seconds that tokens live which are issued from now on."""
        self.skew = 0.0
        """Seconds that the clock of the service is ahead of this machine's."""

    def now(self) -> float:
        """The time of the service, in seconds of the epoch."""
        return time.time() + self.skew

    def issue(self, audience: str, lifetime: float | None = None, **claims: str) -> str:
        """A signed token; without `lifetime` it lives as long as tokens do now."""
        now = self.now()
        self._last = next(self._serials)
        token = jwt.encode(
            {
                "aud": audience,
                "iss": f"https://sts.windows.net/{self._tenant}/",
                "tid": self._tenant,
                "iat": int(now),
                "nbf": int(now) - 300,
                "exp": int(now + (self.lifetime if lifetime is None else lifetime)),
                "jti": str(self._last),
                **claims,
            },
            self._key,
            algorithm="RS256",
        )
        self.issued.append(token)
        return token

    @staticmethod
    def expiry_of(token: str) -> int:
        """The end of a token's life, in seconds of the epoch."""
        return int(jwt.decode(token, options={"verify_signature": False})["exp"])

    def expire(self) -> None:
        """Every token issued so far is refused from now on, whatever its `exp` says."""
        self._expired = self._last

    def refusal(self, authorization: str | None, audiences: Collection[str]) -> str | None:
        """Why a request with this header is not let in; None: it is."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme != "Bearer" or not token:
            return "Bearer token not provided."
        try:
            claims = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=["RS256"],
                audience=list(audiences),
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError as error:
            return f"Bearer token is invalid: {error}"
        if claims["exp"] <= self.now() or int(claims["jti"]) <= self._expired:
            return "Bearer token is expired."
        return None


def audience_of(scope: str) -> str:
    """The resource that a scope names: what stands before ``/.default``."""
    return scope.removesuffix("/.default")
