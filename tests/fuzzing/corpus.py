"""The journals that fuzzing begins with: seeds, and what runs before have found worth keeping."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from tests.fuzzing.seeds import seeds

_FOUND = Path(__file__).with_name("found.tar.gz")


def corpus(parent: Path) -> Iterator[bytes]:
    """Each packed; `parent` is a folder to make the seeds in."""
    for packed in seeds(parent):
        yield packed.to_bytes()
    with tarfile.open(_FOUND) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            yield file.read()
