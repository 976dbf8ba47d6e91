"""Python processes that this one starts, to decode what could crash it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[2]

_START = """
import json, sys
sys.path[:] = json.loads(sys.argv.pop(1))
from {module} import main
sys.exit(main())
"""


def python_command(module: str) -> list[str]:
    """The command of a Python process that runs ``main()`` of a module.

    It imports what this process would import; nothing in the current folder is taken for a module.
    """
    folders = [*filter(None, sys.path), str(_PACKAGE)]
    return [sys.executable, "-P", "-c", _START.format(module=module), json.dumps(folders)]
