"""What users and frameworks hand us, made into numbers, names and texts that a store accepts.

Pure functions; each problem is a `BadValue` whose message names the value and the remedy.
"""

from __future__ import annotations

import functools
import hashlib
import math
import operator
import posixpath
import re
import reprlib
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, SupportsFloat, TypeVar, cast

V = TypeVar("V")

NAME_LENGTH = 250
_NAME = re.compile(r"[/\w.\- :]+")
_STEP_LIMIT = 1 << 63
_TEXT_LIMIT = 1 << 20
_MOST_ITEMS = 100_000
_DEEPEST = 6
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

_SECRET_WORDS = frozenset("password passwd pwd secret credential credentials passphrase".split())
_SECRET_PAIRS = frozenset(
    tuple(pair.split("_"))
    for pair in "api_key access_key private_key account_key secret_key connection_string"
    " auth_header bearer_token".split()
)
_SECRET_SHAPE = re.compile(
    r"eyJ[\w-]{10,}\.[\w-]{10,}|AKIA[0-9A-Z]{16}|gh[pousr]_\w{20,}|hf_\w{20,}|sk-[\w-]{20,}"
    r"|dapi[0-9a-f]{32}|xox[bap]-[\w-]{10,}|AccountKey=|[?&]sig=|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|://[^/\s:@]+:[^/\s:@]+@"
)
_TOKEN_SHAPE = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w\-./+=]{20,}")
MASK = "********"
_USERINFO = re.compile(r"(?<=://)[^/\s@'\"]+@")
_QUERY = re.compile(r"(/[^\s?'\"<>]*)\?[^\s'\"<>)]+")


class BadValue(ValueError):
    """A value that no MLflow store can take."""


def pairs(kind: str, mapping: Mapping[Any, V]) -> list[tuple[Any, V]]:
    """The items of what should be a mapping."""
    try:
        return list(mapping.items())
    except Exception as error:  # noqa: BLE001 - it may be anything, or change while it is read
        raise BadValue(
            f"{kind}s={_show(mapping)} cannot be read "
            f"({type(error).__name__}: {plain_text(error)}); pass a dict of names and values"
        ) from None


def changed(key: str, first: str, later: str) -> BadValue:
    """What to say of a param that was logged before with another value."""
    return BadValue(
        f"param {key!r} is {_show(first)} and would become {_show(later)}: the first value stands, "
        "the later one is in params.json; log what changes with log_metric"
    )


def source(value: Any) -> Path:
    """The path of a file or folder that is there."""
    try:
        path = Path(value)
        if path.exists():
            return path
    except (TypeError, ValueError, OSError) as error:
        raise BadValue(f"artifact {_show(value)}: {error}; pass a path") from None
    raise BadValue(f"artifact {_show(value)}: no such file; pass the path of one that is there")


def folder(value: object) -> str:
    """An artifact folder as a prefix of paths, "" for the root: any path down from there."""
    text = str(value).strip("/") if value else ""
    if text and (posixpath.normpath(text) != text or text.partition("/")[0] in (".", "..")):
        raise BadValue(f"artifact folder name {_show(value)} leads elsewhere; use a/b, without ..")
    return f"{text}/" if text else ""


def number(key: str, value: object) -> float:
    """A metric's value as a float; NaN and infinities are numbers.

    Anything with ``__float__`` counts (numpy and torch scalars, 0-d arrays), text does not.
    """
    kind = type(value)
    is_number = hasattr(kind, "__float__") or hasattr(kind, "__index__")
    if not is_number or isinstance(value, (str, bytes)):
        raise BadValue(
            f"metric {key!r}: {_show(value)} is {type(value).__name__}, not a number; "
            "log a float (text belongs in set_tags or log_params)"
        )
    try:
        return _real(value)
    except Exception as error:  # noqa: BLE001 - __float__ is the user's code
        raise BadValue(
            f"metric {key!r}: {_show(value)} cannot be made a float "
            f"({type(error).__name__}: {plain_text(error)}); "
            "log one number, for example value.mean()"
        ) from None


def _real(value: Any) -> float:
    """``float(value)``; torch warns of that where there is a gradient, numpy for a complex one."""
    whole = complex(value.detach() if hasattr(type(value), "detach") else value)
    if whole.imag:
        raise TypeError("it has an imaginary part")
    return whole.real


def step(value: object) -> int:
    """A step as an int that fits 64 bits; a float must be whole."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        whole = operator.index(value)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - __index__ is the user's code
        whole = _whole_scalar(value)
    if not -_STEP_LIMIT <= whole < _STEP_LIMIT:
        raise BadValue(f"step={_show(whole)}: a step must fit 64 bits; use a smaller int")
    return whole


def _whole_scalar(value: object) -> int:
    try:
        scalar = float(cast("SupportsFloat", value))
    except Exception:  # noqa: BLE001 - __float__ is the user's code
        scalar = math.nan
    if isinstance(value, (str, bytes, bytearray)) or not scalar.is_integer():
        raise BadValue(f"step={_show(value)}: a step is a whole number; use an int")
    return int(scalar)


def name(kind: str, value: object) -> str:
    """A metric, param or tag name as MLflow's stores accept it."""
    problem = _name_problem(value)
    if problem:
        raise BadValue(f"{kind} name {_show(value)}: {problem}")
    return str.__str__(value)  # what was checked: an enum's str() would be another text


def _name_problem(value: object) -> str | None:
    if not isinstance(value, str):
        return f"is {type(value).__name__}; use text"
    if not value:
        return "is empty; give it a name"
    if len(value) > NAME_LENGTH:
        return f"has {len(value)} characters; use at most {NAME_LENGTH}"
    if not _NAME.fullmatch(value):
        return "use only letters, digits, '_', '-', '.', ' ', ':' and '/'"
    if posixpath.normpath(value) != value or value == "." or value.startswith(("..", "/")):
        return "'/' separates parts as in a relative path; leave out '..', '//' and outer '/'"
    return None


@functools.lru_cache(maxsize=4096)
def fitting_name(value: str) -> str:
    """A name that a framework chose, changed only where a store would refuse it."""
    fitted = value.replace("@", "_at_")
    fitted = re.sub(r"[^/\w.\- :]", "_", fitted)
    parts = fitted[:NAME_LENGTH].split("/")
    fitted = "/".join(part for part in parts if part not in ("", ".", ".."))
    return re.sub(r"^\.\.", "__", fitted) or "_"


def stable_text(value: object) -> str:
    """A param's value as text that is the same in every run: no addresses, sorted keys.

    Classes and functions give their qualified name; objects their repr without its address.
    At most a million characters; a collection too large to be a param gives its type and size.
    """
    return shortened(_unicode(_stable(value, 0)), _TEXT_LIMIT)


def _stable(value: object, depth: int) -> str:
    try:
        return _stable_unguarded(value, depth)
    except Exception as error:  # noqa: BLE001 - a container of the user's may raise when it is read
        return _no_text(value, error)


def _stable_unguarded(value: object, depth: int) -> str:
    if isinstance(value, str):
        return value if depth == 0 else repr(value)
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
    is_plain = isinstance(value, (Mapping, AbstractSet)) or type(value) in (list, tuple)
    if is_plain and depth < _DEEPEST:
        return _stable_items(cast("Collection[object]", value), depth + 1)
    return _ADDRESS.sub("", plain_text(value))


def _stable_items(value: Collection[object], depth: int) -> str:
    if len(value) > _MOST_ITEMS:
        return f"<{type(value).__qualname__} of {len(value)} items>"
    if isinstance(value, Mapping):
        pairs = sorted((_stable(k, depth), _stable(v, depth)) for k, v in value.items())
        return "{" + ", ".join(f"{k}: {v}" for k, v in pairs) + "}"
    items = [_stable(item, depth) for item in value]
    if isinstance(value, AbstractSet):
        return "{" + ", ".join(sorted(items)) + "}"
    if isinstance(value, list):
        return f"[{', '.join(items)}]"
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"


def plain_text(value: object) -> str:
    """``str(value)``, or the type's name where that raises."""
    try:
        return shortened(_unicode(str(value)), _TEXT_LIMIT)
    except Exception as error:  # noqa: BLE001 - __str__ is the user's code
        return _no_text(value, error)


def _no_text(value: object, error: Exception) -> str:
    return f"<{type(value).__qualname__}: its text raises {type(error).__name__}>"


def shortened(text: str, length: int) -> str:
    """A text cut to `length` characters, its end a hash of the whole."""
    if len(text) <= length:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{text[: length - 16]}...#{digest}"


def _unicode(text: str) -> str:
    """The text, with what is no character (half of a pair) spelt out: no store takes that."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def masked(key: str, text: str) -> str:
    """The text, or `MASK` where the key or the shape of the text says that it is a secret."""
    if not text or _is_number(text) or text in ("None", "True", "False"):
        return text
    words = tuple(re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", key).lower().replace("-", "_").split("_"))
    words = tuple(word for part in words for word in re.split(r"[^a-z0-9]+", part) if word)
    says_key = bool(words and (words[-1] in _SECRET_WORDS or words[-1] == "apikey")) or (
        words[-2:] in _SECRET_PAIRS
    )
    is_token = bool(words) and words[-1] == "token" and _TOKEN_SHAPE.fullmatch(text)
    return MASK if says_key or is_token or _SECRET_SHAPE.search(text) else text


def without_permissions(text: str) -> str:
    """The words of somebody else, with what lets in masked in the addresses that they quote.

    That is user name and password, and the whole query: a storage's permission is part of that.
    """
    return _QUERY.sub(rf"\1?{MASK}", _USERINFO.sub(f"{MASK}@", text))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _show(value: object) -> str:
    try:
        return reprlib.repr(value)
    except Exception:  # noqa: BLE001 - __repr__ is the user's code
        return f"<{type(value).__qualname__}>"
