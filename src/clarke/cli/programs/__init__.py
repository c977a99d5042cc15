"""Small programs whose generalized gradients are known, written as their users would.

clarke treats the files of this package as user code: reports name their lines.
"""

from __future__ import annotations

from clarke.cli.programs.known_right import RIGHT
from clarke.cli.programs.known_wrong import WRONG
from clarke.cli.programs.model import Example
from clarke.cli.programs.sets import SETS
from clarke.cli.programs.users import USERS

EXAMPLES: tuple[Example, ...] = (*WRONG, *RIGHT, *SETS, *USERS)

__all__ = ["EXAMPLES", "RIGHT", "SETS", "USERS", "WRONG", "Example"]
