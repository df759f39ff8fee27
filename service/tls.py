"""TLS 1.2 and 1.3. A certificate that is renewed while the server runs is taken up by the next connection."""

from __future__ import annotations

import ssl
from pathlib import Path

from scoring.errors import LineOodError
from service.settings import Settings
from service.watched import Watched


class Tls:
    """A certificate, its key, and the context that new connections begin with.

    That context hands each handshake on to the newest one: OpenSSL lets none be changed while it is in use.

    Args:
        certificate: PEM file with the certificate and those between it and its root.
        key: PEM file with its key, not encrypted.
        client_ca: PEM file with the certificates that a client's has to be signed by; None asks clients for none.

    Raises:
        LineOodError: a file cannot be read, or the key is not the certificate's.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate, self._key = certificate, key
        # Read once: whom to let in is not changed by half a file.
        self._client_roots = None if client_ca is None else _read_roots(client_ca)
        self.watched = Watched([certificate, key], self._read)
        self.context = self._newest
        self.context.sni_callback = self._hand_on

    @classmethod
    def of(cls, settings: Settings) -> Tls | None:
        """What the settings ask for; None for plain HTTP."""
        if settings.tls_cert is None or settings.tls_key is None:  # `Settings` refuses one without the other
            return None
        return cls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)

    def _read(self) -> None:
        self._newest = self._make()

    def _hand_on(self, connection: ssl.SSLObject | ssl.SSLSocket, *_: object) -> None:
        connection.context = self._newest

    def _make(self) -> ssl.SSLContext:
        context = _modern()
        if self._client_roots is not None:
            context.load_verify_locations(cadata=self._client_roots)
            context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self._certificate, self._key, password=_refuse)
        except OSError as error:
            raise LineOodError(f"--tls-cert {self._certificate}, --tls-key {self._key}: {_reason(error)}") from error
        return context


def _read_roots(client_ca: Path) -> str:
    try:
        roots = client_ca.read_text("ascii", errors="ignore")  # comments may be of any kind
        _modern().load_verify_locations(cadata=roots)
    except (OSError, ValueError) as error:
        raise LineOodError(f"--tls-client-ca {client_ca}: {_reason(error)}") from error
    return roots


def _modern() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # costs the server more than the client
    context.set_alpn_protocols(["http/1.1"])
    return context


def _refuse() -> str:
    raise LineOodError("--tls-key: the key is encrypted, and nobody is there to give its password")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, (ssl.SSLError, ValueError)):
        reason = (getattr(error, "reason", "") or "").lower().replace("_", " ")
        return f"{reason or 'not as OpenSSL wants it'}; wanted PEM files that belong together"
    return error.strerror or str(error)
