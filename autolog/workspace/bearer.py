"""What a bearer token says of itself."""

from __future__ import annotations

import base64
import json


def expiry(token: str) -> float:
    """When a token ends, in seconds since the epoch; its signature is the service's affair.

    Raises `ValueError` for what is no JSON Web Token with an ``exp`` (RFC 7519, 4.1.4).
    """
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, ValueError, KeyError, TypeError) as error:
        # Without the error's own words, which can quote the token.
        raise ValueError(f"what was given is no token ({type(error).__name__})") from None
