"""The command line: one file a command, and `main`, the entry point of the program `perdure`.

Owns the words of the program: options, output, exit codes, the loading of a user's file.
Promises: results on stdout and all else on stderr; what others named is escaped; no traceback unless asked for.
May import: app and everything below; never testing.
"""

from perdure.cli.program import main

__all__ = ["main"]
