"""Reads what runs have left: ``python -m peers.reader CONTENDER``, in a process of its own.

Its input is a line of JSON for each run, ``[place, called, returned]``; for each it prints one
with the `Audit`. ``--recover`` does before what the package offers to who lost processes.
"""

from __future__ import annotations

import contextlib
import json
import sys

from peers.contenders import Contender, Place, Stored, contenders
from peers.work import audit


def main(name: str, recover: bool) -> None:
    """Read and print; what packages print themselves goes to stderr."""
    contender = contenders()[name]
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        if recover:
            contender.recover()
        for line in sys.stdin:
            place, called, returned = json.loads(line)
            found = audit(_read(contender, Place(*place)), called, returned)
            print(json.dumps(found), file=out, flush=True)


def _read(contender: Contender, place: Place) -> Stored:
    """What its package cannot read is lost."""
    try:
        return contender.stored(place)
    except Exception as error:  # noqa: BLE001 - whatever a package raises on what is left
        return Stored((), f"cannot be read ({type(error).__name__})")


if __name__ == "__main__":
    main(sys.argv[1], recover="--recover" in sys.argv)
