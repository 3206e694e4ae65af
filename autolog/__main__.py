"""``python -m autolog``."""

import sys

if not getattr(sys.flags, "safe_path", False):
    # The working directory, where a `queue.py` of the user's would be taken for Python's own.
    del sys.path[0]

from autolog.cli import main

main()
