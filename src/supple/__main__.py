"""``python -m supple``: the command line."""

from supple.lab.cli import main

main()
