"""``make bench``: see `peers.command`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parent.parent)

if __name__ == "__main__":
    from peers.command import main

    sys.exit(main())
