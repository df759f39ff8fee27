"""The online command: serve. Its flags are the fields of `Settings`."""

from __future__ import annotations

import inspect
import operator
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_origin

import typer
from pydantic import ValidationError

from scoring.errors import LineOodError
from service.settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    from service.sources import Loaded, Source

app = typer.Typer(rich_markup_mode=None)


def serve(**flags: Any) -> None:
    """Serve an artifact over HTTP. Every flag is also an environment variable."""
    # Heavy imports stand here, so that `--help` is quick.
    from scoring.embedded import SAMPLE
    from service.app import create_app
    from service.logs import configure
    from service.server import listen, url_of
    from service.server import serve as run
    from service.sources import read_sources
    from service.tls import Tls
    from service.tracing.start import start_tracing

    # Until the server drains, a signal ends the process cleanly; as PID 1 it would have no effect otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # it would end the process; the server takes it later
    settings = _read_settings(flags)
    sources = read_sources(settings)
    configure(settings.log_level)
    tls = Tls.of(settings)
    tracing = start_tracing(settings)
    listener = listen(settings.host, settings.port)
    application = create_app(_load(sources), settings, tracing)  # nobody else keeps what was loaded: it may be replaced
    url = url_of(listener, "http" if tls is None else "https")
    typer.echo(f"{', '.join(application.state.models)} on {url} (API: {url}/docs); try:")
    typer.echo(f"  curl -H 'Content-Type: image/jpeg' --data-binary @{SAMPLE} {url}/v1/predict")
    run(application, settings, listener, tls)


def _load(sources: Sequence[Source]) -> list[Loaded]:
    from service.sources import load_all

    loaded = load_all(sources)
    for each in loaded:
        if deviation := each.source.deviation(each.scorer):
            typer.echo(deviation, err=True)
    return loaded


def _read_settings(flags: dict[str, Any]) -> Settings:
    given = {name: value for name, value in flags.items() if value not in (None, [])}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else None
        where = f"{flag_of(name)} ({variable_of(name)}): " if name else ""
        raise LineOodError(f"{where}{first['msg']}") from error


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + name.upper()


def _default_of(name: str) -> str:
    default = Settings.model_fields[name].default
    return "" if default is None or isinstance(default, list) else f" [{default}]"


def _signature() -> inspect.Signature:
    parameters = []
    for name, setting in Settings.model_fields.items():
        # typer would split a variable of several values at spaces, which paths have: `Settings` reads those.
        is_several = get_origin(setting.annotation) is list
        variable = f" [env var: {variable_of(name)}, with commas between several]" if is_several else ""
        option = typer.Option(
            flag_of(name),
            help=f"{setting.description}{_default_of(name)}{variable}",
            envvar=None if is_several else variable_of(name),
            show_default=False,
        )
        annotation: Any = operator.getitem(Annotated, (setting.annotation, option))  # types as values
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    return inspect.Signature(parameters)


serve.__signature__ = _signature()  # type: ignore[attr-defined]  # how a function tells typer of its flags
serve.__annotations__ = {parameter.name: parameter.annotation for parameter in _signature().parameters.values()}
app.command()(serve)
