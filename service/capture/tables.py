"""A manifest as a file: CSV, or Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scoring.errors import LineOodError
from scoring.files import write_atomically
from service.capture.manifest import Row
from service.capture.record import Record

COLUMNS = ("image", *Record.model_fields)
FORMS = (".csv", ".parquet")


def check_form(path: Path) -> None:
    """Make sure that such a file can be written, before anything is read for it.

    Raises:
        LineOodError: it cannot.
    """
    if path.suffix not in FORMS:
        raise LineOodError(f"--out {path}: wanted a name that ends in {' or '.join(FORMS)}")
    if not path.absolute().parent.is_dir():
        raise LineOodError(f"--out {path}: there is no folder {path.parent}")
    if path.suffix == ".parquet":
        _pyarrow()


def write_table(rows: Iterable[Row], path: Path) -> None:
    """Write the file at once or not at all.

    Raises:
        LineOodError: it cannot be written.
    """
    cells = [{"image": row.image, **row.record.model_dump()} for row in rows]
    content = _csv(cells) if path.suffix == ".csv" else _parquet(cells)
    try:
        write_atomically(path, content, mode=0o644)
    except OSError as error:
        raise LineOodError(f"--out {path}: {error.strerror or error}") from error


def _csv(cells: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows({**each, "time": each["time"].isoformat()} for each in cells)
    return text.getvalue().encode()


def _parquet(cells: Sequence[dict[str, Any]]) -> bytes:
    arrow = _pyarrow()
    types = {"integer": arrow.int64(), "number": arrow.float64(), "date-time": arrow.timestamp("us", tz="UTC")}
    schema = arrow.schema([(name, types.get(_kind(name), arrow.string())) for name in COLUMNS])
    sink = io.BytesIO()
    arrow.parquet.write_table(arrow.Table.from_pylist(cells, schema=schema), sink)
    return sink.getvalue()


def _kind(column: str) -> str:
    described = Record.model_json_schema()["properties"].get(column, {})
    kind: str = described.get("format") or described.get("type", "string")
    return kind


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet  # noqa: PLC0415 - large, optional, and for this alone
    except ImportError as error:
        raise LineOodError("Parquet needs pyarrow: pip install 'line-ood[parquet]'; CSV needs nothing") from error
    return pyarrow
