"""What a bearer token says of itself."""

from __future__ import annotations

import base64
import json
from typing import Any


def expiry(token: str) -> float:
    """When a token ends, in seconds since the epoch; its signature is the service's affair.

    Raises `ValueError` for what is no JSON Web Token with an ``exp`` (RFC 7519, 4.1.4).
    """
    return _time(_claims(token), "exp")


def life(token: str) -> float:
    """How many seconds a token was made for.

    Raises `ValueError` for what is no JSON Web Token with an ``exp`` and an ``iat``.
    """
    claims = _claims(token)
    return _time(claims, "exp") - _time(claims, "iat")


def holder(token: str) -> str:
    """Whom a token of Microsoft Entra names; empty where it names nobody."""
    claims = _claims(token)
    user = next((claims[name] for name in ("upn", "unique_name") if claims.get(name)), "")
    application = claims.get("appid") or claims.get("azp") or ""
    named = user or (f"application {application}" if application else "")
    return f"{named} of tenant {claims.get('tid', 'unknown')}" if named else ""


def _claims(token: str) -> dict[str, Any]:
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return dict(claims)
    except (IndexError, ValueError, TypeError) as error:
        raise _none(error) from None


def _time(claims: dict[str, Any], name: str) -> float:
    try:
        return float(claims[name])
    except (KeyError, TypeError, ValueError) as error:
        raise _none(error) from None


def _none(error: Exception) -> ValueError:
    # Without the error's own words, which can quote the token.
    return ValueError(f"what was given is no token ({type(error).__name__})")
