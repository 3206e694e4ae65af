"""The real MLflow server behind the stand-in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx
from starlette.responses import Response

if TYPE_CHECKING:
    from tests.azureml.ledger import Ledger
    from tests.azureml.place import Place


class Upstream:
    """Sends to the server at `url` in its own ids, and gives back what clients may see."""

    def __init__(self, url: str, place: Place, ledger: Ledger) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=60, trust_env=False)
        self._place = place
        self._ledger = ledger

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def call(self, method: str, endpoint: str, **values: Any) -> dict[str, Any]:
        """The answer to a call of the stand-in's own; ``LookupError`` where there is none."""
        chosen = {"params": values} if method == "GET" else {"json": values}
        reply = await self._client.request(method, f"/api/2.0/mlflow/{endpoint}", **chosen)
        if reply.status_code != 200:
            raise LookupError(reply.text)
        answer: dict[str, Any] = reply.json()
        return answer

    async def pass_on(
        self, method: str, endpoint: str, query: Mapping[str, str] | str, body: bytes
    ) -> Response:
        """The server's answer to a client's request."""
        reply = await self._client.request(
            method,
            f"/api/2.0/mlflow/{endpoint}",
            params=httpx.QueryParams(query),
            content=body,
            headers={"Content-Type": "application/json"},
        )
        try:
            answer = reply.json()
        except ValueError:
            return Response(reply.content, reply.status_code)
        self._at_home(answer)
        text = self._ledger.outward(json.dumps(answer))
        return Response(text, reply.status_code, media_type="application/json")

    def _at_home(self, answer: Any) -> None:
        """Artifacts are in the workspace, not on the MLflow server."""
        if isinstance(answer, list):
            for item in answer:
                self._at_home(item)
        elif isinstance(answer, dict):
            if "artifact_uri" in answer:
                run = f"experiments/{answer['experiment_id']}/runs/{answer['run_id']}/artifacts"
                answer["artifact_uri"] = f"{self._place.uri}/{run}"
            for item in answer.values():
                self._at_home(item)
