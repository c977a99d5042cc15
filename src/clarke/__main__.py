"""`python -m clarke` is the `clarke` command."""

from __future__ import annotations

from clarke.cli import main

if __name__ == "__main__":
    main()
