"""`python -m captioner` is the `captioner` command."""

from __future__ import annotations

import sys

from captioner.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
