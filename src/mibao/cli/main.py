"""The root of the command line: mounts the nouns, turns errors into one readable line and an exit code.

Exit codes: ``docs/commands.md``.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from mibao import __version__
from mibao.cli import apikey, deid, demo, he, keygen, ledger, seal, secagg, serve, train
from mibao.errors import InputError, MibaoError

EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
_DEBUG = "MIBAO_DEBUG"
# Click's base of all wrong usage; newer versions of typer carry their own copy of click.
_USAGE_ERROR: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(
    name="mibao",
    help="Private AI, end to end: train together, seal, serve encrypted, and prove it on a ledger.",
    epilog="Start with `mibao demo`. Every command has its own --help.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command(rich_help_panel="Start here")(demo.demo)
app.command(rich_help_panel="Keys and models")(keygen.keygen)
app.command(rich_help_panel="Training together")(train.train)
app.add_typer(secagg.app, name="secagg", rich_help_panel="Training together")
app.add_typer(he.app, name="he", rich_help_panel="Computing on ciphertexts")
app.command(rich_help_panel="Serving")(serve.serve)
app.add_typer(apikey.app, name="apikey", rich_help_panel="Serving")
app.add_typer(ledger.app, name="ledger", rich_help_panel="Ledger")
seal.mount(app)
deid.mount(app)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mibao {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    if debug:
        os.environ[_DEBUG] = "1"


def main() -> NoReturn:
    """Run the command line and exit; the outer edge, where every error becomes one line."""
    try:
        sys.exit(app(standalone_mode=False))
    except MibaoError as error:
        _fail(str(error), error.exit_code)
    except _USAGE_ERROR as error:
        _fail_usage(error)
    except OSError as error:
        where = f": {error.filename}" if error.filename is not None else ""
        _fail(f"{error.strerror or type(error).__name__}{where}", InputError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", EXIT_INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the outer edge: a fault of ours still ends in one line
        _fail(f"a fault in mibao itself ({type(error).__name__}); `mibao --debug ...` shows where", EXIT_INTERNAL)


def _fail_usage(error: Exception) -> NoReturn:
    """A wrong option or argument, in one line; a command given nothing at all prints its help."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message, file=sys.stderr)  # noqa: T201
        sys.exit(InputError.exit_code)
    hint = f" (see: {context.command_path} --help)" if context is not None else ""
    _fail(" ".join(message.split()) + hint, InputError.exit_code)


def _fail(message: str, exit_code: int) -> NoReturn:
    if os.environ.get(_DEBUG) == "1":
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(exit_code)
