"""Arrays as MLflow's ``mlflow.data.from_numpy`` describes them: schema, profile and digest.

Of an array at most the first 10,000 elements are read, as MLflow does, which takes some tenths of a
millisecond whatever its size. One that is not in the host's memory is not read at all.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

_MOST_ELEMENTS: Final = 10_000
_MOST_PARTS: Final = 100
_TEXTS: Final = frozenset([str, bytes, bool, int, float, type(None)])
"""What may stand in an array of objects whose elements are read."""


class Part(NamedTuple):
    """One array; what is None cannot be told without work."""

    shape: tuple[int, ...]
    dtype: str | None = None
    head: Any = None
    """Its first elements."""
    size: int | None = None
    nbytes: int | None = None


Parts = dict[str | None, Part]
"""Arrays by name; one alone has None for a name."""


def parts_of(data: Any) -> Parts:
    """An array, or arrays by name; those in a mapping within a mapping are ``<name>/<name>``.

    Raises for anything else, whatever that raises when it is asked for its shape.
    """
    if not isinstance(data, Mapping):
        return {None: _part_of(data)}
    if len(data) > _MOST_PARTS:
        raise ValueError("too many to be the inputs of a model")
    return {
        str(name) if inner is None else f"{name}/{inner}": part
        for name, value in data.items()
        for inner, part in parts_of(value).items()
    }


def _part_of(data: Any) -> Part:
    if isinstance(data, (list, tuple)):
        inner = data[0] if data else None
        return Part((len(data), len(inner)) if isinstance(inner, (list, tuple)) else (len(data),))
    shape = tuple(-1 if length is None else int(length) for length in data.shape)
    if _is_sparse(data):
        return Part(shape, _name_of(data.dtype), _head_of_sparse(data), math.prod(shape))
    if hasattr(data, "iloc"):  # a Series: only its head, for that of texts is a copy
        head = data.iloc[:_MOST_ELEMENTS].to_numpy()
        return Part(shape, _name_of(head.dtype), head.ravel(), int(data.size))
    array = _in_memory(data)
    if array is None:
        return Part(shape, _name_of(data.dtype))
    head = array.flat[:_MOST_ELEMENTS]
    return Part(shape, _name_of(array.dtype), head, int(array.size), int(array.nbytes))


def _is_sparse(data: object) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(data))


def _head_of_sparse(data: Any) -> Any:
    """The first elements of a matrix by rows; where those are spread out, the first stored ones."""
    if data.format != "csr":
        return data.data.ravel()[:_MOST_ELEMENTS]
    rows = math.ceil(_MOST_ELEMENTS / max(1, data.shape[1]))
    return data[:rows, :_MOST_ELEMENTS].toarray().ravel()[:_MOST_ELEMENTS]


def _in_memory(data: Any) -> Any:
    """The array, or one that shares its memory; None where the values are somewhere else."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(data, numpy.ndarray):
        return numpy.asarray(data)
    # What is no array numpy would iterate.
    is_array = hasattr(type(data), "__array__")
    if not (is_array and "cpu" in str(getattr(data, "device", "")).lower()):
        return None
    try:
        return numpy.asarray(data.detach() if hasattr(data, "detach") else data)
    except (TypeError, ValueError, RuntimeError):  # of a type, or a layout, that numpy lacks
        return None


def _name_of(dtype: Any) -> str:
    """The name that numpy has for a type, where it has one."""
    if getattr(dtype, "kind", None) in ("U", "S"):
        return "str" if dtype.kind == "U" else "bytes"
    dtype = getattr(dtype, "as_numpy_dtype", dtype)  # TensorFlow's
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    return str(name).removeprefix("torch.").removesuffix("_")


# -- what MLflow has of them -----------------------------------------------------------------------


def schema(features: Parts, targets: Parts) -> str | None:
    """Types and shapes, the first dimension of each left open; None where one is not known."""
    known, wanted = specs(features), specs(targets) if targets else None
    if known is None:
        return None
    content = {
        "features": json.dumps(known),
        "targets": None if wanted is None else json.dumps(wanted),
    }
    return json.dumps({"mlflow_tensorspec": content})


def specs(parts: Parts) -> list[dict[str, object]] | None:
    """An entry for each array; None where the type or the shape of one is not known."""
    if not all(part.dtype and part.shape for part in parts.values()):
        return None
    return [spec(name, part) for name, part in parts.items()]


def spec(name: str | None, part: Part) -> dict[str, object]:
    """The type and the shape of an array, its first dimension left open."""
    named = {} if name is None else {"name": name}
    content = {"dtype": part.dtype, "shape": [-1, *part.shape[1:]]}
    return {**named, "type": "tensor", "tensor-spec": content}


def profile(features: Parts, targets: Parts) -> dict[str, object]:
    """Shapes, numbers of elements and bytes."""
    found: dict[str, object] = {}
    for kind, parts in (("features", features), ("targets", targets)):
        for field in ("shape", "size", "nbytes"):
            values = {name: getattr(part, field) for name, part in parts.items()}
            if parts and None not in values.values():
                found[f"{kind}_{field}"] = values.get(None, values)
    return found


def digest(features: Parts, targets: Parts) -> str:
    """A hash over shapes and first elements; over shapes and types where no values are at hand."""
    return md5(
        element
        for parts in (features, targets)
        for name in sorted(parts, key=str)
        for element in _hashable(parts[name])
    )


def md5(elements: Iterable[Any]) -> str:
    """A short hash over buffers, as MLflow has it."""
    total = hashlib.md5(usedforsecurity=False)
    for element in elements:
        total.update(element)
    return total.hexdigest()[:8]


def int64(number: int) -> bytes:
    """A number as a part of a hash."""
    return number.to_bytes(8, sys.byteorder, signed=True)


def _hashable(part: Part) -> Iterator[Any]:
    yield str(part.dtype).encode() if part.head is None else _hashes(part.head)
    yield from map(int64, part.shape)


def _hashes(values: Any) -> Any:
    """What pandas' ``hash_array``, on which MLflow builds, gives for each element.

    For numbers this is the same without pandas, which takes half a second to import.
    """
    kind, width = values.dtype.kind, values.dtype.itemsize
    if kind in "biufmM" and width <= 8:
        return _mixed(_canonical(values).view(f"u{width}").astype("u8"))
    pandas = sys.modules.get("pandas")
    is_plain = kind != "O" or _TEXTS.issuperset(map(type, values))
    if pandas is not None and is_plain:
        return pandas.util.hash_array(values)
    return values.tobytes() if kind != "O" else int64(values.size)


def _canonical(values: Any) -> Any:
    """One bit pattern for each number: 0.0 for -0.0, and one NaN."""
    if values.dtype.kind != "f":
        return values
    import numpy as np

    values = values + 0
    values[np.isnan(values)] = np.nan
    return values


def _mixed(bits: Any) -> Any:
    import numpy as np

    bits ^= bits >> 30
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> 27
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> 31
    return bits
