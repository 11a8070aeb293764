"""`python -m posetune.cli`: the same as `posetune`."""

from posetune.cli import main

main()
