"""Who may ask, over real HTTP: API keys, admin keys, and files of them that change while the server runs."""

from __future__ import annotations

import json
import logging
import re
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from fastapi import Request

from scoring.errors import LineOodError
from service.app import create_app
from service.keys import Keys, parse
from service.problems import ForbiddenError, MissingKeyError, UnknownKeyError
from service.settings import Settings
from service.watched import Watched
from tests.processes import RunningServer, running_server
from tests.service.conftest import LiveApp, encode, live, only
from tests.service.keys import ADMIN, KEY, OTHER, bearer, key_files, line
from tests.service.test_protocol import problem_of, status_of, talk
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return key_files(tmp_path)


@pytest.fixture
def locked(scorer, files: dict[str, Path]) -> Iterator[LiveApp]:
    """An app with keys, and an endpoint for admins."""
    app = create_app([only(scorer)], Settings(**files))

    @app.post("/admin/act")
    async def act(request: Request) -> dict[str, str]:
        return {"by": request.app.state.keys.check_admin(request.headers)}

    with live(app) as running:
        yield running


class TestFile:
    def test_comments_and_both_cases(self):
        """Names and digests are read, comments and empty lines are not, hexadecimal is either case."""
        digest = sha256(b"x").hexdigest()
        assert parse(f"# all\n\nx : {digest.upper()}  # mine\n", "keys") == (("x", bytes.fromhex(digest)),)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "there are none"),
            ("# nobody\n", "there are none"),
            ("\nname:the-key-itself\n", "line 2"),
            (f"{'0' * 64}\n", "line 1"),
            (f"a b:{'0' * 64}\n", "line 1"),
            (line("a", KEY) + line("b", KEY), "twice"),
        ],
    )
    def test_a_broken_file_is_refused_without_repeating_it(self, text, message):
        """The error says where, and never what: the line may be a key."""
        with pytest.raises(LineOodError, match=message) as told:
            parse(text, "keys")
        assert "the-key-itself" not in str(told.value)

    def test_a_missing_file_is_refused(self, tmp_path):
        """A server that was to have keys does not start without."""
        with pytest.raises(LineOodError, match="No such file"):
            Keys(tmp_path / "none", None)

    def test_the_documented_way_to_make_a_key(self, tmp_path):
        """The lines of docs/security.md make a key that is accepted, and a file that does not hold it."""
        text = (ROOT / "docs" / "security.md").read_text()
        (script,) = re.findall(r"```sh\n(key=.*?)```", text, re.DOTALL)
        done = subprocess.run(["sh", "-ec", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        key = done.stdout.strip()
        assert len(key) >= 43
        assert key not in (tmp_path / "api-keys").read_text()
        assert Keys(tmp_path / "api-keys", None).check_client({"x-api-key": key}) == "camera-7"


class TestChecks:
    def test_who_may_what(self, files):
        """Clients ask, admins do both, strangers and the keyless neither."""
        keys = Keys(**files)
        assert keys.check_client({"authorization": f"Bearer {KEY}"}) == "camera-7"
        assert keys.check_client({"authorization": f"bearer  {OTHER} "}) == "camera-8"
        assert keys.check_client({"authorization": "Basic eDp5", "x-api-key": OTHER}) == "camera-8"
        assert keys.check_client({"x-api-key": ADMIN}) == keys.check_admin({"x-api-key": ADMIN}) == "ops"
        for check in (keys.check_client, keys.check_admin):
            with pytest.raises(MissingKeyError):
                check({"authorization": "Bearer "})
            with pytest.raises(UnknownKeyError):
                check({"x-api-key": KEY + "x"})
            with pytest.raises(UnknownKeyError):
                check({"x-api-key": sha256(KEY.encode()).hexdigest()})  # the file's content opens nothing
            with pytest.raises(UnknownKeyError):
                check({"x-api-key": "\xff\xfe"})
        with pytest.raises(ForbiddenError, match="admin key"):
            keys.check_admin({"x-api-key": KEY})

    def test_without_files(self, files):
        """Without API keys everybody may ask; without admin keys nobody may administrate."""
        keys = Keys(None, files["admin_keys"])
        assert keys.check_client({}) == keys.check_client({"x-api-key": "any"}) == ""
        assert keys.check_client({"x-api-key": ADMIN}) == "ops"
        for headers in ({}, {"x-api-key": KEY}, {"x-api-key": ADMIN}):
            with pytest.raises(ForbiddenError, match="no admin keys"):
                Keys(files["api_keys"], None).check_admin(headers)

    def test_every_key_is_compared(self, files, monkeypatch):
        """No early exit: the first, the last and no key cost as many comparisons, each in constant time."""
        compared = []
        monkeypatch.setattr("service.keys.compare_digest", lambda a, b: compared.append(1) or a == b)
        keys = Keys(files["api_keys"], None)
        for key in (KEY, OTHER, "stranger"):
            compared.clear()
            try:
                keys.check_client({"x-api-key": key})
            except UnknownKeyError:
                assert key == "stranger"
            assert len(compared) == 2


class TestHttp:
    def test_a_key_opens(self, locked):
        """Both headers are read; the answer is the usual one."""
        for headers in (bearer(KEY), {"X-API-Key": OTHER}, bearer(ADMIN)):
            answer = httpx.post(f"{locked.url}/v1/predict", content=encode(), headers=PNG | headers)
            assert answer.status_code == 200
            assert answer.json()["results"][0]["predictions"]

    def test_no_key_is_401_before_the_body_is_read(self, locked):
        """The problem is told as such, with the challenge, though the body never comes, and does not name the keys."""
        head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\nx"
        answer, seconds = talk(locked.url, head)
        assert seconds < 0.9
        assert status_of(answer) == 401
        assert b'www-authenticate: Bearer realm="line-ood"\r\n' in answer
        problem = problem_of(answer)
        assert (problem["status"], problem["code"], problem["instance"]) == (401, "key_missing", "/v1/predict")
        assert b"camera" not in answer

    def test_a_wrong_key(self, locked):
        """401 as well, with what RFC 6750 calls it."""
        answer = httpx.post(f"{locked.url}/v1/predict", content=encode(), headers=PNG | bearer("wrong"))
        assert answer.status_code == 401
        assert answer.json()["code"] == "key_unknown"
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
        assert answer.headers["Content-Type"] == "application/problem+json"

    def test_every_path_but_health_and_documentation_needs_a_key(self, locked):
        """Routes that come later are closed unless somebody opens them, those that do not exist are not told apart."""
        closed = {"/metrics", "/v1/predict", "/admin/act", "/v2", "/no/such", "/livez/", "//livez", "/docs/../metrics"}
        for path in closed:
            with httpx.Client() as client:
                request = client.build_request("GET", locked.url)
                request.url = request.url.copy_with(raw_path=path.encode())
                assert client.send(request).status_code == 401, path
        for path in ("/livez", "/readyz", "/docs", "/openapi.json", "/docs/swagger-ui.css"):
            assert httpx.get(locked.url + path).status_code == 200, path
        assert httpx.get(f"{locked.url}/metrics", headers=bearer(KEY)).status_code == 200

    def test_admin_endpoints(self, locked):
        """An admin's name reaches the endpoint; a client's key is 403, none 401."""
        url = f"{locked.url}/admin/act"
        assert httpx.post(url, headers=bearer(ADMIN)).json() == {"by": "ops"}
        forbidden = httpx.post(url, headers=bearer(KEY))
        assert (forbidden.status_code, forbidden.json()["code"]) == (403, "forbidden")
        assert httpx.post(url).status_code == 401

    def test_an_admin_endpoint_without_keys_for_clients(self, scorer, files):
        """Where clients need no key, the challenge of an admin endpoint comes from the endpoint."""
        app = create_app([only(scorer)], Settings(admin_keys=files["admin_keys"]))

        @app.post("/admin/act")
        async def act(request: Request) -> dict[str, str]:
            return {"by": request.app.state.keys.check_admin(request.headers)}

        with live(app) as running:
            answer = httpx.post(f"{running.url}/admin/act")
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="line-ood"'
            assert httpx.post(f"{running.url}/v1/predict", content=encode(), headers=PNG).status_code == 200

    def test_the_log_has_the_name_and_the_metrics_the_reason(self, locked, caplog):
        """Who asked stands in the log line; the key stands nowhere."""
        with caplog.at_level(logging.DEBUG, "service"):
            httpx.post(f"{locked.url}/v1/predict", content=encode(), headers=PNG | bearer(KEY))
            httpx.post(f"{locked.url}/v1/predict", content=encode(), headers=PNG | bearer("wrong-key"))
            httpx.post(f"{locked.url}/v1/predict", content=encode(), headers=PNG)
        assert [vars(record).get("key") for record in caplog.records] == ["camera-7", None, None]
        assert "wrong-key" not in caplog.text
        assert KEY not in caplog.text
        text = httpx.get(f"{locked.url}/metrics", headers=bearer(KEY)).text
        assert 'line_ood_refused_requests_total{reason="key_missing"} 1.0' in text
        assert 'line_ood_refused_requests_total{reason="key_unknown"} 1.0' in text

    def test_the_documentation_says_which_keys(self, locked, start, scorer):
        """OpenAPI names both ways, so that /docs has a field for the key; health needs none; without keys no word."""
        schema = httpx.get(f"{locked.url}/openapi.json").json()
        assert schema["components"]["securitySchemes"]["header"]["name"] == "X-API-Key"
        assert schema["security"] == [{"bearer": []}, {"header": []}]
        assert schema["paths"]["/livez"]["get"]["security"] == []
        assert "security" not in schema["paths"]["/v1/predict"]["post"]
        assert "security" not in httpx.get(f"{start(scorer).url}/openapi.json").json()


class TestChange:
    def test_a_changed_file_is_taken_up_and_a_broken_one_is_not(self, files, caplog):
        """The new keys count, the old ones no longer; a file that is broken or gone changes nothing, and is told."""
        keys = Keys(**files)
        (watched, _) = keys.watched
        path = files["api_keys"]
        path.write_text(line("camera-9", "new"))
        watched.refresh()
        assert keys.check_client({"x-api-key": "new"}) == "camera-9"
        with pytest.raises(UnknownKeyError):
            keys.check_client({"x-api-key": KEY})
        for break_it in (
            lambda: path.write_text("camera-10:plain-key"),
            lambda: path.write_bytes(b"\xff"),
            path.unlink,
        ):
            caplog.clear()
            break_it()
            watched.refresh()
            watched.refresh()  # it is told once
            assert keys.check_client({"x-api-key": "new"}) == "camera-9"
            (record,) = caplog.records
            assert record.levelname == "ERROR"
            assert "plain-key" not in record.getMessage()
        path.write_text(line("camera-10", "newest"))
        watched.refresh()
        assert keys.check_client({"x-api-key": "newest"}) == "camera-10"

    def test_a_link_that_points_elsewhere_is_a_change(self, tmp_path):
        """Kubernetes changes a secret by changing a link; size and time may be the same."""
        reads = []
        for name in ("one", "two"):
            (tmp_path / name).write_text(name)
            (tmp_path / name).touch()
        (tmp_path / "link").symlink_to("one")
        watched = Watched([tmp_path / "link"], lambda: reads.append((tmp_path / "link").read_text()))
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").rename(tmp_path / "link")
        watched.refresh()
        watched.refresh()
        assert reads == ["one", "two"]

    def test_a_real_server_takes_up_keys(self, tiny_artifact, files):
        """Two seconds after the file has changed the process asks for the new key, and its log says so."""
        path = files["api_keys"]
        with running_server("--artifact", str(tiny_artifact), env={"LINE_OOD_API_KEYS": str(path)}) as server:
            assert ask(server, KEY) == 200
            assert ask(server, "new") == 401
            path.write_text(line("camera-9", "new"))
            until(lambda: ask(server, "new") == 200)
            assert ask(server, KEY) == 401
            assert server.terminate() == 0
        told = [json.loads(each) for each in server.log]
        assert [each["files"] for each in told if each["message"] == "read again"] == [[str(path)]]


def ask(server: RunningServer, key: str) -> int:
    return httpx.post(f"{server.url}/v1/predict", content=encode(), headers=PNG | bearer(key)).status_code
