"""The command `line-ood`: the offline commands and the server, side by side; neither knows the other.

Exit codes: 0 done; 2 bad usage or bad input, with one line on what and where; 1 a defect, with a traceback.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from calibration.cli import app as calibration_app
from scoring.errors import LineOodError
from service.capture.cli import app as capture_app
from service.cli import app as service_app

app = typer.Typer(
    name="line-ood",
    help="Tells when an image classifier should not be trusted.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(calibration_app)
app.add_typer(service_app)
app.add_typer(capture_app)


def main() -> None:
    """Run a command; an error that its user can mend is one line and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.TyperException as error:
        _fail(error.format_message())
    except LineOodError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)  # as shells count an interrupt


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"line-ood: {' '.join(message.split())}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
