"""Who a request says it is, whom it trusts and which way it goes."""

from __future__ import annotations

import base64
import ipaddress
import ssl
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from answering import Answer, AnsweringServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from autolog.batching import Batch
from autolog.exporters import Retryable, exporter_for
from autolog.exporters.rest import Credentials, RestExporter, credentials

_BATCH = Batch("r", tags=(("a", "b"),))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home without credentials, and no proxy."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)


def _basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def _headers(target: str, server: AnsweringServer, environ: Mapping[str, str]) -> Mapping[str, str]:
    exporter_for(target, environ).export(_BATCH)
    return server.seen[-1].headers


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"MLFLOW_TRACKING_TOKEN": "t"}, "Bearer t"),
        ({"MLFLOW_TRACKING_USERNAME": "u"}, None),
        ({"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "pä"}, _basic("u:pä")),
        (
            {
                "MLFLOW_TRACKING_USERNAME": "u",
                "MLFLOW_TRACKING_PASSWORD": "p",
                "MLFLOW_TRACKING_TOKEN": "t",
            },
            _basic("u:p"),
        ),
    ],
    ids=["nothing", "token", "no password", "password", "both"],
)
def test_the_server_sees_the_credentials(environ: dict[str, str], expected: str | None) -> None:
    """A bearer token, or a user name with its password, which wins as it does in MLflow."""
    with AnsweringServer() as server:
        assert _headers(server.url, server, environ).get("Authorization") == expected


def _save_credentials(home: Path, password: str) -> None:
    folder = home / ".mlflow"
    folder.mkdir(exist_ok=True)
    (folder / "credentials").write_text(
        f"[mlflow]\nmlflow_tracking_username = saved\nmlflow_tracking_password = {password}\n"
    )


def test_saved_credentials_serve_where_the_environment_has_none(tmp_path: Path) -> None:
    """`~/.mlflow/credentials` fills in what the variables leave out."""
    _save_credentials(tmp_path, "p")
    assert credentials({}, tmp_path).authorization == _basic("saved:p")
    found = credentials({"MLFLOW_TRACKING_USERNAME": "u"}, tmp_path)
    assert found.authorization == _basic("u:p")


def test_renewed_credentials_are_used_at_once(tmp_path: Path) -> None:
    """Saved credentials are read anew for each request."""
    _save_credentials(tmp_path, "old")
    with AnsweringServer() as server:
        exporter = exporter_for(server.url, {})
        exporter.export(_BATCH)
        _save_credentials(tmp_path, "new")
        exporter.export(_BATCH)
    sent = [request.headers["Authorization"] for request in server.seen]
    assert sent == [_basic("saved:old"), _basic("saved:new")]


def test_a_user_name_in_the_address_wins() -> None:
    """User name and password of the address, unquoted, go before the environment's."""
    with AnsweringServer() as server:
        target = server.url.replace("://", "://me:p%40ss@")
        headers = _headers(target, server, {"MLFLOW_TRACKING_TOKEN": "t"})
    assert headers["Authorization"] == _basic("me:p@ss")


def test_netrc_serves_where_there_is_nothing_else(tmp_path: Path) -> None:
    """`~/.netrc` is used without other credentials and never in the place of a token."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login n password p\n")
    (tmp_path / ".netrc").chmod(0o600)
    with AnsweringServer() as server:
        assert _headers(server.url, server, {})["Authorization"] == _basic("n:p")
        with_token = _headers(server.url, server, {"MLFLOW_TRACKING_TOKEN": "t"})
    assert with_token["Authorization"] == "Bearer t"


def test_a_redirect_to_another_host_goes_without_credentials() -> None:
    """The token is not shown to the host that a server points at."""
    with AnsweringServer() as elsewhere:
        other = f"http://localhost:{elsewhere.port}/api"
        with AnsweringServer(Answer(307, b"", {"Location": other})) as server:
            exporter_for(server.url, {"MLFLOW_TRACKING_TOKEN": "t"}).export(_BATCH)
    assert server.seen[0].headers["Authorization"] == "Bearer t"
    assert len(elsewhere.seen) == 1
    assert "Authorization" not in elsewhere.seen[0].headers


@pytest.mark.parametrize("token", ["secret\nline", "secret\u20ac"])
def test_a_token_that_no_header_can_carry_is_not_shown(token: str) -> None:
    """A malformed token keeps the data, and the reason does not quote it."""
    with AnsweringServer() as server, pytest.raises(Retryable) as caught:
        exporter_for(server.url, {"MLFLOW_TRACKING_TOKEN": token}).export(_BATCH)
    assert "secret" not in str(caught.value)


def test_unreadable_saved_credentials_keep_the_data(tmp_path: Path) -> None:
    """A damaged `~/.mlflow/credentials` is a matter of configuration."""
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text("no section\n")
    with AnsweringServer() as server, pytest.raises(Retryable):
        exporter_for(server.url, {}).export(_BATCH)


def test_requests_name_us_and_the_workspace() -> None:
    """Requests carry our name and, where the environment names one, MLflow's workspace."""
    with AnsweringServer() as server:
        plain = _headers(server.url, server, {})
        named = _headers(server.url, server, {"MLFLOW_WORKSPACE": " team "})
    assert plain["User-Agent"].startswith("mlflow-autolog")
    assert "X-MLFLOW-WORKSPACE" not in plain
    assert named["X-MLFLOW-WORKSPACE"] == "team"


def test_the_path_of_the_address_is_kept() -> None:
    """A server below a path, with or without a slash at the end, is asked below that path."""
    with AnsweringServer() as server:
        exporter_for(server.url + "/below/this/", {}).export(_BATCH)
    assert server.seen[0].path == "/below/this/api/2.0/mlflow/runs/log-batch"


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is honoured: the proxy is asked for the whole address."""
    with AnsweringServer() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        exporter_for("http://mlflow.invalid:5000", {}).export(_BATCH)
    assert proxy.seen[0].path == "http://mlflow.invalid:5000/api/2.0/mlflow/runs/log-batch"


# -- TLS -----------------------------------------------------------------------------------------


def _issue(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority: its file, and one with the key too."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "autolog test")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    public = folder / "authority.pem"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    both = folder / "identity.pem"
    both.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + public.read_bytes()
    )
    return public, both


def _tls(identity: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    return context


def test_an_unknown_authority_is_not_trusted(tmp_path: Path) -> None:
    """Nothing is sent to a server whose certificate nobody vouches for."""
    _, identity = _issue(tmp_path)
    with AnsweringServer(tls=_tls(identity)) as server, pytest.raises(Retryable, match="verify"):
        exporter_for(server.url, {}).export(_BATCH)
    assert server.seen == []


@pytest.mark.parametrize("trust", ["authority", "no check", "authority over bundle"])
def test_trust_is_what_mlflow_is_told(
    trust: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's certificate variables decide, against REQUESTS_CA_BUNDLE too."""
    authority, identity = _issue(tmp_path)
    environ = {"MLFLOW_TRACKING_SERVER_CERT_PATH": str(authority)}
    if trust == "no check":
        environ = {"MLFLOW_TRACKING_INSECURE_TLS": "true"}
    if trust == "authority over bundle":
        (tmp_path / "other").mkdir()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(_issue(tmp_path / "other")[0]))
    with AnsweringServer(tls=_tls(identity)) as server:
        exporter_for(server.url, environ).export(_BATCH)
    assert len(server.seen) == 1


def test_the_bundle_of_the_environment_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REQUESTS_CA_BUNDLE counts where MLflow's variables say nothing."""
    authority, identity = _issue(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    with AnsweringServer(tls=_tls(identity)) as server:
        exporter_for(server.url, {}).export(_BATCH)
    assert len(server.seen) == 1


def test_a_missing_authority_file_keeps_the_data(tmp_path: Path) -> None:
    """A wrong path is a matter of configuration."""
    environ = {"MLFLOW_TRACKING_SERVER_CERT_PATH": str(tmp_path / "none.pem")}
    with pytest.raises(Retryable):
        exporter_for("https://127.0.0.1:9", environ).export(_BATCH)


def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    """A server that asks for a client certificate gets the configured one."""
    authority, identity = _issue(tmp_path)
    context = _tls(identity)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority)
    shown = Credentials(verify=str(authority), client_cert=str(identity))
    with AnsweringServer(tls=context) as server:
        with pytest.raises(Retryable):
            RestExporter(server.url, lambda: Credentials(verify=str(authority))).export(_BATCH)
        RestExporter(server.url, lambda: shown).export(_BATCH)
    assert len(server.seen) == 1
