"""MLflow's REST API through requests, without mlflow: 25 MB instead of 200."""

from __future__ import annotations

import base64
import configparser
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.utils import get_auth_from_url, urldefragauth
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from autolog.batching import MLFLOW_SERVER
from autolog.exporters import Retryable, wire
from autolog.exporters.tracking import RUN_KEY, Found, TrackingExporter, if_any
from autolog.targets import without_userinfo

if TYPE_CHECKING:
    from autolog.batching import Batch
    from autolog.records import RunStart

_CONNECT_SECONDS, _READ_SECONDS = 5.0, 30.0


# -- credentials ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Credentials:
    """How requests identify themselves and whom they trust."""

    username: str | None = None
    password: str | None = None
    token: str | None = None
    """A bearer token; a user name with a password wins over it, as in MLflow."""
    verify: bool | str = True
    """Whether to check the server's certificate, or the file of the authorities to trust."""
    client_cert: str | None = None
    """A PEM file with the client's certificate and key."""
    workspace: str | None = None
    """The MLflow workspace on servers that have them."""
    netrc: bool = True
    """Whether ``~/.netrc`` may serve where there is nothing else."""

    @property
    def authorization(self) -> str | None:
        """The value of the Authorization header."""
        if self.username and self.password:
            return _basic(self.username, self.password)
        return f"Bearer {self.token}" if self.token else None


def credentials(environ: Mapping[str, str], home: Path | None) -> Credentials:
    """What MLflow's own client would use: its variables, then ``~/.mlflow/credentials``.

    `home` None leaves out everything that is saved in files.

    Where both an authority file and MLFLOW_TRACKING_INSECURE_TLS are set, which MLflow refuses, the
    file is used. Raises OSError or `configparser.Error` for an unreadable file.
    """
    file = configparser.ConfigParser()
    if home is not None:
        file.read(home / ".mlflow" / "credentials")
    saved = dict(file["mlflow"]) if file.has_section("mlflow") else {}
    insecure = environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    return Credentials(
        username=environ.get("MLFLOW_TRACKING_USERNAME") or saved.get("mlflow_tracking_username"),
        password=environ.get("MLFLOW_TRACKING_PASSWORD") or saved.get("mlflow_tracking_password"),
        token=environ.get("MLFLOW_TRACKING_TOKEN"),
        verify=environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or not insecure,
        client_cert=environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
        workspace=environ.get("MLFLOW_WORKSPACE", "").strip() or None,
        netrc=home is not None,
    )


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class _Authorization(AuthBase):
    """Given as `auth`, a header, or none, stands against a ``~/.netrc``."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value is not None:
            request.headers["Authorization"] = self._value
        return request


# -- the connection ------------------------------------------------------------------------------


def _acknowledge_at_once(connection: HTTPConnection) -> None:
    # MLflow's server with several workers sends head and body of a reply in two segments and holds
    # the second until the first is acknowledged, which Linux delays by 40 ms unless told each time.
    if connection.sock is not None and hasattr(socket, "TCP_QUICKACK"):
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class _Connection(HTTPConnection):
    def getresponse(self) -> Any:
        _acknowledge_at_once(self)
        return super().getresponse()


class _TlsConnection(HTTPSConnection):
    def getresponse(self) -> Any:
        _acknowledge_at_once(self)
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


def _user_agent() -> str:
    try:
        return f"mlflow-autolog/{version('mlflow-autolog')}"
    except PackageNotFoundError:
        return "mlflow-autolog"


class RestExporter(TrackingExporter):
    """The exporter for an MLflow server behind HTTP(S).

    `credentials` is called before each request, as MLflow's client does, so that a renewed token or
    file is used at once. Proxies and REQUESTS_CA_BUNDLE are requests' own affair. A user name in
    the URI wins over all other credentials, ``~/.netrc`` serves where there is none.
    """

    limits = MLFLOW_SERVER

    def __init__(self, target: str, credentials: Callable[[], Credentials]) -> None:
        self._target = target
        self._credentials = credentials
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter())
        self._session.headers["User-Agent"] = _user_agent()

    def close(self) -> None:
        """See `Exporter.close`."""
        self._session.close()

    def get_run(self, run_id: str) -> Found | None:
        """See `TrackingExporter`."""
        reply = if_any(lambda: self.call("GET", "runs/get", params={"run_id": run_id}))
        return None if reply is None else wire.found(reply, "run", "info", "run_id")

    def search_run(self, experiment_id: str, key: str) -> Found | None:
        """See `TrackingExporter`."""
        query = {
            "experiment_ids": [experiment_id],
            "filter": f"tags.`{RUN_KEY}` = '{key}'",
            "run_view_type": "ALL",
            "max_results": 1,
        }
        reply = self.call("POST", "runs/search", wire.body(query))
        return wire.found(reply, "runs", 0, "info", "run_id") if reply.get("runs") else None

    def create_run(self, experiment_id: str, start: RunStart, tags: Mapping[str, str]) -> str:
        """See `TrackingExporter`."""
        content = {
            "experiment_id": experiment_id,
            "run_name": start.name,
            "start_time": start.timestamp,
            "user_id": start.tags.get("mlflow.user", "unknown"),
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        reply = self.call("POST", "runs/create", wire.body(content))
        return str(wire.at(reply, "run", "info", "run_id"))

    def update_run(self, run_id: str, status: str, end_time: int | None) -> None:
        """See `TrackingExporter`."""
        end = {} if end_time is None else {"end_time": end_time}
        content = {"run_id": run_id, "status": status, **end}
        self.call("POST", "runs/update", wire.body(content))

    def get_experiment(self, name: str) -> Found | None:
        """See `TrackingExporter`."""
        named = {"experiment_name": name}
        reply = if_any(lambda: self.call("GET", "experiments/get-by-name", params=named))
        return None if reply is None else wire.found(reply, "experiment", "experiment_id")

    def create_experiment(self, name: str) -> str:
        """See `TrackingExporter`."""
        reply = self.call("POST", "experiments/create", wire.body({"name": name}))
        return str(wire.at(reply, "experiment_id"))

    def log_batch(self, batch: Batch) -> None:
        """See `TrackingExporter`."""
        self.call("POST", "runs/log-batch", wire.encode(batch))

    def log_inputs(self, run_id: str, content: str) -> None:
        """See `Exporter.log_inputs`."""
        self.call("POST", "runs/log-inputs", wire.body({**wire.inputs(content), "run_id": run_id}))

    def call(
        self,
        method: str,
        endpoint: str,
        body: bytes | None = None,
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Ask one of MLflow's routes; the reply. Raises `Retryable` and `Rejected`."""
        return self._send(method, f"{self._base}/api/2.0/mlflow/{endpoint}", body, params)

    @property
    def _base(self) -> str:
        """What stands before MLflow's own paths; raises `Retryable` for what is no address."""
        try:
            return str(urldefragauth(self._target)).rstrip("/")
        except ValueError as error:
            raise _unusable(error) from None

    def _send(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        params: Mapping[str, str] | None = None,
        credentials: Credentials | None = None,
    ) -> dict[str, Any]:
        """Ask, with the credential of the moment unless another one is given; the reply."""
        try:
            credentials = credentials or self._credentials()
            userinfo = get_auth_from_url(self._target)
            authorization = _basic(*userinfo) if any(userinfo) else credentials.authorization
            may_be_netrc = credentials.netrc and authorization is None
            headers = {"Content-Type": "application/json"}
            if credentials.workspace:
                headers["X-MLFLOW-WORKSPACE"] = credentials.workspace
            reply = self._session.request(
                method,
                url,
                params=params,
                data=body,
                headers=headers,
                auth=None if may_be_netrc else _Authorization(authorization),
                # Not on the session, where REQUESTS_CA_BUNDLE would win over them.
                verify=credentials.verify,
                cert=credentials.client_cert,
                timeout=(_CONNECT_SECONDS, _READ_SECONDS),
            )
        except (ValueError, configparser.Error) as error:
            raise _unusable(error) from None
        except OSError as error:
            is_proxy = isinstance(error, requests.exceptions.ProxyError)
            who = "the proxy" if is_proxy else without_userinfo(self._target)
            raise Retryable(f"no answer from {who}: {_innermost(error)}") from error
        return wire.content(reply, method)


def _unusable(error: Exception) -> Retryable:
    # Without the error's own words, which can quote the credential.
    name = type(error).__name__
    return Retryable(f"{name}: the address, the proxy or a credential cannot be used")


def _innermost(error: BaseException) -> str:
    """What went wrong first, without the names of those who passed it on."""
    while (reason := error.__cause__ or error.__context__) is not None:
        error = reason
    return f"{error}" or type(error).__name__
