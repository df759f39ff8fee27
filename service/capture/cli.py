"""The command `captured`: a manifest of what a server has kept."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.capture.record import Reason

app = typer.Typer(rich_markup_mode=None)


@app.command()
def captured(
    url: Annotated[str, typer.Argument(help="What --capture of the server is: a folder or a URL.")],
    out: Annotated[Path, typer.Option(help="Manifest to write: a .csv or a .parquet file.")],
    reason: Annotated[
        list[str] | None, typer.Option(help="reject, borderline or random; repeat for more. [all]")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only images from then on: 2026-11-24, 2026-11-24T09:00+01:00; UTC if not said.")
    ] = None,
) -> None:
    """List the images that a server has kept for labelling, one row each, sorted by time."""
    # Heavy imports stand here, so that `--help` is quick.
    from service.capture.manifest import Broken, Row, read_rows
    from service.capture.tables import check_form, write_table
    from service.capture.target import Target

    reasons, moment = [_reason_of(each) for each in reason or ()], _moment_of(since)
    check_form(out)
    found = list(read_rows(Target(url), reasons=reasons, since=moment))
    rows, broken = (
        [each for each in found if isinstance(each, Row)],
        [each for each in found if isinstance(each, Broken)],
    )
    for each in broken:
        typer.echo(f"skipped {each.path}: {each.reason}", err=True)
    if broken and not rows:
        typer.echo(f"line-ood: none of the {len(broken)} side files could be used", err=True)
        raise typer.Exit(2)
    write_table(rows, out)
    typer.echo(f"{len(rows)} images in {out}")


def _reason_of(text: str) -> Reason:
    from service.capture.record import REASONS

    for reason in REASONS:
        if text == reason:
            return reason
    raise typer.BadParameter(f"wanted {', '.join(REASONS)}, found {text!r}", param_hint="--reason")


def _moment_of(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"wanted a date or a time as 2026-11-24T09:00Z, found {text!r}", param_hint="--since"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
