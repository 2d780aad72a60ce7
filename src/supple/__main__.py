"""``python -m supple``: the command line."""

from supple.cli import main

main()
