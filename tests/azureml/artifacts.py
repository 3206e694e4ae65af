"""Artifacts of runs: write-once names in the run history, and the storage account behind them."""

from __future__ import annotations

import hashlib
import hmac
import re
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree as ET

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.azureml.faults import problem
from tests.azureml.place import BLOB_HOST, Place

if TYPE_CHECKING:
    from starlette.requests import Request

    from tests.azureml.ledger import Ledger
    from tests.azureml.limits import Limits

CONTAINER = "azureml"


class Blobs:
    """The storage account: what was put under a signed address."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        """By container and path."""
        self._key = hashlib.sha256(b"the account's key").digest()
        self._blocks: dict[tuple[str, str], bytes] = {}
        self.routes = [
            Route("/{path:path}", self.put, methods=["PUT"]),
            Route("/{path:path}", self.get, methods=["GET", "HEAD"]),
        ]

    def address(self, path: str) -> str:
        """Where `path` may be put and read: an address with its signature."""
        signature = quote(self._signature(path), safe="")
        return f"https://{BLOB_HOST}/{quote(path)}?sv=2024-11-04&sr=b&sp=rcw&sig={signature}"

    def container_address(self, container: str) -> str:
        """Where every path of a container may be put and read."""
        signature = quote(self._signature(container), safe="")
        return f"https://{BLOB_HOST}/{container}?sv=2024-11-04&sr=c&sp=rcwl&sig={signature}"

    @staticmethod
    def path_of(address: str) -> str:
        """Container and path of an address."""
        return unquote(urlsplit(address).path).lstrip("/")

    async def put(self, request: Request) -> Response:
        """A blob at once, one of its blocks, or the list of its blocks."""
        path, query = request.path_params["path"], request.query_params
        if not self._is_signed(request):
            return _storage_error(403, "AuthenticationFailed")
        if query.get("comp") == "metadata":  # which no test looks at
            content = self.contents.get(path)
            return _storage_error(404, "BlobNotFound") if content is None else _stored(content, 200)
        body = await request.body()
        if query.get("comp") == "block":
            self._blocks[path, query["blockid"]] = body
            return _stored(body)
        if request.headers.get("if-none-match") == "*" and path in self.contents:
            return _storage_error(409, "BlobAlreadyExists")
        if query.get("comp") == "blocklist":
            listed = [block.text or "" for block in ET.fromstring(body)]
            body = b"".join(self._blocks.pop((path, block)) for block in listed)
        self.contents[path] = body
        return _stored(body)

    async def get(self, request: Request) -> Response:
        """A blob, or the range of it that is asked for."""
        path = request.path_params["path"]
        if not self._is_signed(request):
            return _storage_error(403, "AuthenticationFailed")
        if path not in self.contents:
            return _storage_error(404, "BlobNotFound")
        content = self.contents[path]
        headers = {**_stamps(content), "x-ms-blob-type": "BlockBlob", "Accept-Ranges": "bytes"}
        asked = request.headers.get("x-ms-range") or request.headers.get("range")
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
        if not span or request.method == "HEAD":
            return Response(content, 200, headers, "application/octet-stream")
        first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
        if first >= len(content):
            return _storage_error(416, "InvalidRange")
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return Response(content[first : last + 1], 206, headers, "application/octet-stream")

    def _signature(self, path: str) -> str:
        return hmac.new(self._key, path.encode(), "sha256").hexdigest()

    def _is_signed(self, request: Request) -> bool:
        path, given = request.path_params["path"], request.query_params.get("sig", "")
        scope = path.partition("/")[0] if request.query_params.get("sr") == "c" else path
        return hmac.compare_digest(given, self._signature(scope))


class Artifacts:
    """Which artifacts a run has, below ``/history/v1.0`` and SDK v1's ``/artifact/v2.0``.

    A name is taken when its address is asked for, whether or not content follows.
    """

    def __init__(self, place: Place, ledger: Ledger, limits: Limits, blobs: Blobs) -> None:
        self._ledger = ledger
        self._limits = limits
        self._blobs = blobs
        self._names: dict[str, list[str]] = {}
        runs = f"/history/v1.0{place.scope}/experiments/{{experiment}}/runs/{{run}}"
        by_id = f"/history/v1.0{place.scope}/experimentids/{{experiment}}/runs/{{run}}"
        sdk = f"/artifact/v2.0{place.scope}/artifacts"
        container = "ExperimentRun/dcid.{run}"
        self.routes = [
            Route(f"{sdk}/batch/metadata/{container}", self.create, methods=["POST"]),
            Route(f"{sdk}/contentinfo/{container}/{{path:path}}", self.content_info),
            Route(f"{sdk}/prefix/contentinfo/{container}/{{path:path}}", self.below),
            Route(f"{sdk}/{container}", self.listed),
        ] + [
            Route(f"{base}/artifacts{rest}", handler, methods=[method])
            for base in (runs, by_id)
            for rest, handler, method in (
                ("/batch/metadata", self.create, "POST"),
                ("/contentinfo", self.content_info, "GET"),
                ("/path", self.found, "GET"),
                ("", self.listed, "GET"),
            )
        ]

    def of(self, run_id: str) -> dict[str, bytes]:
        """Content by path of a run's artifacts; names without content are left out."""
        stored = ((path, _blob(run_id, path)) for path in self._names.get(run_id, ()))
        contents = self._blobs.contents
        return {path: contents[blob] for path, blob in stored if blob in contents}

    def keep(self, run_id: str, path: str, content: bytes) -> None:
        """Store what the service itself adds to a run."""
        self._names.setdefault(run_id, []).append(path)
        self._blobs.contents[_blob(run_id, path)] = content

    async def create(self, request: Request) -> Response:
        """Take names, and give an address to put each content at."""
        run = request.path_params["run"]
        paths = [item["path"] for item in (await request.json())["paths"]]
        if len(paths) > self._limits.artifacts_of_a_call:
            limit = self._limits.artifacts_of_a_call
            return problem(400, f"Artifact batch size exceeded the limit of {limit}")
        names = self._names.setdefault(self._ledger.inward(run), [])
        made, where, errors = {}, {}, {}
        for path in paths:
            if path in names:
                errors[path] = _conflict(run, path)
                continue
            names.append(path)
            made[path] = _artifact(run, path)
            where[path] = self._content_info(run, path)
        return JSONResponse(
            {"artifacts": made, "artifactContentInformation": where, "errors": errors}
        )

    async def listed(self, request: Request) -> Response:
        """Every artifact of a run."""
        run = request.path_params["run"]
        names = self._names.get(self._ledger.inward(run), [])
        found = [_artifact(run, path) for path in names]
        return JSONResponse({"value": found, "continuationToken": None, "nextLink": None})

    async def found(self, request: Request) -> Response:
        """One artifact."""
        run, path = request.path_params["run"], request.query_params["path"]
        if path not in self._names.get(self._ledger.inward(run), ()):
            return problem(404, f"Artifact {path} not found.")
        return JSONResponse(_artifact(run, path))

    async def below(self, request: Request) -> Response:
        """The addresses to read everything below a path at."""
        run, path = request.path_params["run"], request.path_params["path"]
        names = self._names.get(self._ledger.inward(run), [])
        found = [self._content_info(run, name) for name in names if name.startswith(path)]
        return JSONResponse({"value": found, "continuationToken": None, "nextLink": None})

    async def content_info(self, request: Request) -> Response:
        """The address to read one artifact at."""
        run = request.path_params["run"]
        path = request.path_params.get("path") or request.query_params["path"]
        if path not in self._names.get(self._ledger.inward(run), ()):
            return problem(404, f"Artifact {path} not found.")
        return JSONResponse(self._content_info(run, path))

    def _content_info(self, run: str, path: str) -> dict[str, str]:
        address = self._blobs.address(_blob(self._ledger.inward(run), path))
        return {
            "contentUri": address,
            "origin": "ExperimentRun",
            "container": f"dcid.{run}",
            "path": path,
        }


def _blob(run_id: str, path: str) -> str:
    return f"{CONTAINER}/ExperimentRun/dcid.{run_id}/{unquote(path)}"


def _artifact(run: str, path: str) -> dict[str, object]:
    return {
        "artifactId": f"ExperimentRun/dcid.{run}/{path}",
        "origin": "ExperimentRun",
        "container": f"dcid.{run}",
        "path": path,
        "etag": None,
        "createdTime": "2026-01-01T00:00:00.0000000+00:00",
        "dataPath": None,
        "tags": {},
    }


def _conflict(run: str, path: str) -> dict[str, object]:
    said = f"Resource Conflict: ArtifactId ExperimentRun/dcid.{run}/{path} already exists."
    return {"error": {"code": "UserError", "message": said}}


def _stamps(content: bytes) -> dict[str, str]:
    return {
        "ETag": f'"0x{hashlib.sha256(content).hexdigest()[:15].upper()}"',
        "Last-Modified": formatdate(usegmt=True),
        "x-ms-version": "2024-11-04",
    }


def _stored(content: bytes, status: int = 201) -> Response:
    return Response(status_code=status, headers=_stamps(content))


def _storage_error(status: int, code: str) -> Response:
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message/></Error>'
    return Response(body, status, {"x-ms-error-code": code}, "application/xml")
