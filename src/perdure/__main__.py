"""`python -m perdure` is the program `perdure`."""

from perdure.cli import main

main()
