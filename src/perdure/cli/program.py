"""The program: its commands, and what becomes of errors: a few lines on stderr and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from perdure.cli.backup import backup
from perdure.cli.cancel import cancel
from perdure.cli.doctor import doctor
from perdure.cli.draw import draw
from perdure.cli.fork import fork
from perdure.cli.options import Session
from perdure.cli.output import NobodyReads, say, say_block
from perdure.cli.ps import ps
from perdure.cli.recover import recover
from perdure.cli.resolve import resolve
from perdure.cli.retry import retry
from perdure.cli.run import run
from perdure.cli.show import show
from perdure.cli.signal import signal
from perdure.cli.story import story
from perdure.cli.verify import verify
from perdure.cli.why import why
from perdure.errors import PerdureError, Remedy, RunCancelled, RunFailed
from perdure.model.failure import Failure
from perdure.model.text import escape, redact
from perdure.version import VERSION

COMMANDS = (run, ps, show, why, story, signal, cancel, retry, fork, resolve, recover, verify, draw, backup, doctor)
STOPPED = 128 + 2
LINES_MAX = 6
GROUPS = (
    ("Run", ("run", "draw")),
    ("Look", ("ps", "show", "why", "story", "verify")),
    ("Steer", ("signal", "cancel", "retry", "fork", "resolve")),
    ("Keep", ("backup", "doctor", "recover")),
)


class Program(click.Group):
    """Lists its commands by what they are for."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, names in GROUPS:
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(100)) for name in names])


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Store:  --store, else PERDURE_STORE, else sqlite:///./perdure.db
Exit:   0 good, 1 the run failed or was cancelled, 2 the call was wrong,
        3 the engine or its store failed, 4 the run needs attention, 130 and 143 stopped
""",
)
@click.version_option(VERSION, prog_name="perdure")
def program() -> None:
    """Durable workflows: what they have done is never lost.

    \b
    perdure run hello.py --input '{"names": ["Ada"]}'
    perdure ps
    perdure story RUN
    """


for _command in COMMANDS:
    program.add_command(_command)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the program and exit as documented."""
    session = Session()
    handler = _log_to_stderr()
    try:
        code = _guarded(session, args)
    finally:
        logging.getLogger("perdure").removeHandler(handler)
    sys.exit(code)


def _guarded(session: Session, args: Sequence[str] | None) -> int:
    stdout = sys.stdout
    try:
        found = program.main(args=args, prog_name="perdure", standalone_mode=False, obj=session)
        sys.stdout.flush()
    except (NobodyReads, BrokenPipeError):
        return _unread()
    except (KeyboardInterrupt, click.Abort):
        return STOPPED
    except SystemExit as stop:
        if sys.stdout is not stdout:  # click's own answer to a reader that has gone
            return _unread()
        return stop.code if isinstance(stop.code, int) else 1
    except Exception as error:  # noqa: BLE001 - the last place where an error can be told
        if session.debug:
            traceback.print_exc()
        return told(error)
    return found if isinstance(found, int) else 0


def _unread() -> int:
    """Who reads has seen enough (`| head`): that is no failure, and what is still buffered goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    return 0


def told(error: BaseException) -> int:
    """Say an error in a few lines; the exit code that follows from it."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return Remedy.FIX_CALL.exit_code
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx is not None else "perdure"
        say(f"{error.format_message()}\nsee `{path} --help`")
        return Remedy.FIX_CALL.exit_code
    if isinstance(error, click.ClickException):
        say(error.format_message())
        return Remedy.FIX_CALL.exit_code
    if isinstance(error, RunFailed | RunCancelled):
        say(str(error))
        _ways_on(error)
        return error.remedy.exit_code
    if isinstance(error, PerdureError):
        say(str(error))
        return error.remedy.exit_code
    name = type(error).__name__
    say(f"{name}: {error}" if str(error) else name)
    say_block(["this should not have happened: --debug shows where; please report it"])
    return Remedy.FIX_STORE.exit_code


def _ways_on(error: RunFailed | RunCancelled) -> None:
    lines = []
    if isinstance(error, RunFailed):
        place = _place(error.failure)
        if place:
            lines.append(f"at {place}")
    lines.append(f"`perdure story {error.run_id}` tells how, `perdure retry {error.run_id}` keeps what succeeded")
    say_block(lines)


def _place(failure: Failure) -> str:
    """Where it was raised: the last place that the failure names."""
    lines = [line.strip() for line in failure.where.splitlines() if line.strip()]
    places = [line for line in lines if line.startswith("File ")]
    return escape((places or lines or [""])[-1], 200)


class _Escaped(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(escape(line) for line in redact(super().format(record)).split("\n"))


def _log_to_stderr() -> logging.Handler:
    """What the engine logs, as the program says things."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Escaped("perdure: %(message)s"))
    handler.setLevel(logging.WARNING)
    logging.getLogger("perdure").addHandler(handler)
    return handler
