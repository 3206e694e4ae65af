"""How the fuzzer makes one journal of another."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from autolog.journal import layout
from tests.fuzzing.packed import NAMES, File, Packed, bodies

LARGEST = 1 << 14
"""Bytes of the largest journal, packed."""

Change = Callable[[bytes, int], bytes]
"""Gives other bytes, no more than so many."""

_VALUES = (
    *(None, True, -1, 0, 1, 7, 1.5, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64),
    *("", ".", "..", "../x", "/x", "a/b", "a\0b", "\ud800", "ä\udc80", "x" * 300, "FINISHED"),
    *([], {}, [[]], {"": ""}, ["x"], {"a": 1}),
)
"""What stands for any value of a JSON text."""


def mutate(data: bytes, most: int, seed: int, change: Change) -> bytes:
    """Another journal.

    Most get the checksums that fit their bytes: hardly one would get beyond those by chance.
    """
    dice = random.Random(seed)
    if dice.random() < 0.2:
        return change(data, most)
    packed = Packed.from_bytes(data)
    if packed.files and dice.random() < 0.9:
        packed = _Changes(dice, change).of_packed(packed)
    else:
        packed = Packed.from_bytes(change(data, most))
    if dice.random() < 0.8:
        packed = packed.repaired()
    return packed.to_bytes()[:most]


class _Changes:
    """Changes that keep some of the shape."""

    def __init__(self, dice: random.Random, change: Change) -> None:
        self._dice, self._change = dice, change

    def of_packed(self, packed: Packed) -> Packed:
        """Another file, or another way to read them."""
        if self._dice.random() < 0.05:
            return replace(packed, choices=self._dice.randrange(256))
        files = {file.name: file for file in packed.files}
        file = self._of_file(self._dice.choice(packed.files))
        return replace(packed, files=tuple({**files, file.name: file}.values()))

    def _of_file(self, file: File) -> File:
        match self._dice.randrange(20):
            case 0:
                return replace(file, is_cut=not file.is_cut)
            case 1:
                return replace(file, is_link=not file.is_link)
            case 2:
                return replace(file, name=self._dice.choice(NAMES))
            case 3:
                return self._with_content(file, self._of_bytes(file.content))
            case _:
                return self._with_content(file, self._of_content(file))

    def _of_content(self, file: File) -> bytes:
        if file.segment is not None:
            return self._of_segment(file.content)
        if file.name == layout.PROGRESS:
            check, _, text = file.content.partition(b" ")
            return check + b" " + self._of_json(text)
        return self._of_json(file.content)

    def _of_segment(self, content: bytes) -> bytes:
        """One frame with another body, twice, or left out."""
        frames = list(bodies(content))
        if not frames:
            return self._of_bytes(content)
        offset, body = self._dice.choice(frames)
        end = offset + layout.HEADER.size + len(body)
        match self._dice.randrange(8):
            case 0:
                instead = b""
            case 1:
                instead = layout.frame(body) * 2
            case 2 | 3:
                instead = layout.frame(self._of_bytes(body))
            case _:
                instead = layout.frame(body[:1] + self._of_json(body[1:]))
        return content[:offset] + instead + content[end:]

    def _of_json(self, text: bytes) -> bytes:
        """Another value somewhere, where it is JSON; bytes otherwise."""
        try:
            content = json.loads(text.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            return self._of_bytes(text)
        changed = json.dumps(self._of_value(content), ensure_ascii=False)
        return changed.encode("utf-8", "surrogatepass")

    def _of_value(self, value: Any) -> Any:
        if not isinstance(value, (list, dict)) or not value or self._dice.random() < 0.1:
            return self._dice.choice(_VALUES)
        copy = value.copy()
        at = self._dice.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
        if self._dice.random() < 0.1:
            del copy[at]
        elif isinstance(copy, dict) and self._dice.random() < 0.1:
            copy[str(self._dice.choice(_VALUES))] = copy[at]
        else:
            copy[at] = self._of_value(copy[at])
        return copy

    def _of_bytes(self, content: bytes) -> bytes:
        return self._change(content, len(content) + 64)

    @staticmethod
    def _with_content(file: File, content: bytes) -> File:
        return replace(file, content=content[:LARGEST])
