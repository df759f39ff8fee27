"""TLS, with certificates made here."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
import trustme
from pydantic import ValidationError

from scoring.errors import LineOodError
from service.settings import Settings
from service.tls import Tls
from tests.processes import COMMAND, RunningServer, running_server
from tests.service.conftest import encode
from tests.waiting import until

PNG = {"Content-Type": "image/png"}


class Files:
    """A certificate authority, and files of what it has signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.certificate, self.key, self.roots = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.roots)
        self.renew()

    def renew(self, kind: trustme.KeyType = trustme.KeyType.ECDSA) -> None:
        issued = self.ca.issue_cert("127.0.0.1", key_type=kind)
        issued.private_key_pem.write_to_path(self.key)
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    def client(self, *, with_certificate: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.roots)
        if with_certificate:
            self.ca.issue_cert("vehicle-7@example.org").configure_cert(context)
        return context

    @property
    def flags(self) -> list[str]:
        return ["--tls-cert", str(self.certificate), "--tls-key", str(self.key)]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def shake_hands(tls: Tls, context: ssl.SSLContext) -> ssl.SSLObject:
    """A client's side of a connection through memory."""
    left, right = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = tls.context.wrap_bio(left, right, server_side=True)
    client = context.wrap_bio(right, left, server_hostname="127.0.0.1")
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client


def number_of_certificate(server: RunningServer, context: ssl.SSLContext) -> int:
    host, port = server.url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port))) as raw,
        context.wrap_socket(raw, server_hostname=host) as connection,
    ):
        return int(str((connection.getpeercert() or {})["serialNumber"]), 16)


def test_https(tiny_artifact, files):
    """Answers come over TLS, neither over old TLS nor over plain HTTP; a renewed certificate is taken up."""
    trusting = files.client()
    with running_server("--artifact", str(tiny_artifact), *files.flags, verify=trusting) as server:
        assert server.url.startswith("https://")
        with httpx.Client(base_url=server.url, verify=trusting) as client:
            assert client.post("/v1/predict", content=encode(), headers=PNG).status_code == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{server.url}/livez")
        with pytest.raises(httpx.TransportError):
            httpx.get(server.url.replace("https", "http") + "/livez")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(files.roots)
        old.set_ciphers("DEFAULT@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/livez", verify=old)
        first = number_of_certificate(server, trusting)
        files.certificate.write_text("not a certificate")
        until(lambda: any("what was read before stays" in line for line in server.log))
        assert number_of_certificate(server, trusting) == first
        files.renew()
        until(lambda: number_of_certificate(server, trusting) != first)
        assert server.terminate() == 0


def test_clients_with_certificates(tiny_artifact, files):
    """With a client CA, who has no certificate of it is not spoken to."""
    flags = [*files.flags, "--tls-client-ca", str(files.roots)]
    known = files.client(with_certificate=True)
    with running_server("--artifact", str(tiny_artifact), *flags, verify=known) as server:
        assert httpx.post(f"{server.url}/v1/predict", content=encode(), headers=PNG, verify=known).status_code == 200
        stranger = files.client()
        trustme.CA().issue_cert("stranger@example.org").configure_cert(stranger)
        for context in (files.client(), stranger):
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{server.url}/livez", verify=context)


class TestStart:
    def test_a_pair_that_does_not_fit_keeps_the_context_good(self, files):
        """A key that is not the certificate's is refused when it is read again, and the old pair still works."""
        tls = Tls(files.certificate, files.key, None)
        good = files.certificate.read_bytes()
        files.renew()
        files.certificate.write_bytes(good)
        tls.watched.refresh()
        assert shake_hands(tls, files.client()).version() == "TLSv1.3"

    @pytest.mark.parametrize("ask", ["RSA", "ECDSA"])
    def test_a_key_of_another_kind_takes_the_place_of_the_old_one(self, files, ask):
        """OpenSSL would hold a certificate of each kind, and go on giving an expired one to who prefers it."""
        files.renew(trustme.KeyType.RSA)
        tls = Tls(files.certificate, files.key, files.roots)
        context = files.client(with_certificate=True)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"ECDHE-{ask}-AES128-GCM-SHA256")
        old = tls.context
        files.renew(trustme.KeyType.ECDSA)
        tls.watched.refresh()
        assert tls.context is old
        if ask == "ECDSA":
            assert shake_hands(tls, context).cipher()[0] == "ECDHE-ECDSA-AES128-GCM-SHA256"
        else:
            with pytest.raises(ssl.SSLError):
                shake_hands(tls, context)

    def test_a_file_that_could_not_be_read_is_tried_again(self, files, monkeypatch):
        """Its stamp is what it was: permissions that are put right leave no trace in it."""
        tls = Tls(files.certificate, files.key, None)
        files.renew(trustme.KeyType.RSA)
        load = ssl.SSLContext.load_cert_chain

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", refuse)
        tls.watched.refresh()
        monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load)
        tls.watched.refresh()
        context = files.client()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert "RSA" in shake_hands(tls, context).cipher()[0]

    def test_an_encrypted_key(self, files):
        """Nobody is asked for a password: a server has no terminal."""
        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            PrivateFormat,
            load_pem_private_key,
        )

        key = load_pem_private_key(files.key.read_bytes(), None)
        encryption = BestAvailableEncryption(b"secret")
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        with pytest.raises(LineOodError, match="encrypted"):
            Tls(files.certificate, files.key, None)

    @pytest.mark.parametrize("name", ["certificate", "key", "roots"])
    def test_a_file_that_is_none(self, files, name):
        """Missing or not PEM: which flag, and why."""
        path: Path = getattr(files, name)
        for break_it in (lambda: path.write_text("no PEM"), path.unlink):
            break_it()
            with pytest.raises(LineOodError, match=r"--tls-.*(No such file|wanted PEM)"):
                Tls(files.certificate, files.key, files.roots)

    def test_half_of_a_pair(self):
        """A certificate without its key, or a CA for clients without either, is no setting."""
        with pytest.raises(ValidationError, match="tls_cert and tls_key need each other"):
            Settings(tls_cert="x.pem")
        with pytest.raises(ValidationError, match="tls_client_ca needs tls_cert and tls_key"):
            Settings(tls_client_ca="x.pem")

    def test_it_is_said_in_one_line(self):
        """Exit code 2 and one line, before the model is loaded."""
        flags = ["--tls-cert", "x.pem", "--tls-key", "y.pem"]
        done = subprocess.run([COMMAND, "serve", *flags], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "--tls-cert x.pem, --tls-key y.pem: No such file or directory" in line
