"""Files and models for a workspace of Azure ML, which has no logged models."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from autolog.exporters import Rejected, wire
from autolog.exporters.azureml import AzureExporter
from autolog.uploading.spooled import Registration, SpooledModel
from autolog.workspace.address import Workspace


class WorkspaceRepository:
    """The `Repository` of a workspace."""

    def __init__(self, uri: str, environ: Mapping[str, str]) -> None:
        self._token = ""
        self._exporter = AzureExporter(Workspace.parse(uri), environ, lambda: self._token)

    def with_token(self, token: str | None) -> WorkspaceRepository:
        """The same, which has that token from now on, and no other."""
        self._token = token or ""
        return self

    def log_file(self, run_id: str, file: Path, path: str) -> None:
        """See `Repository`."""
        self._exporter.upload(run_id, file, path)

    def log_model(self, run_id: str, model: SpooledModel) -> None:
        """See `Repository`; what a workspace stores stays, so each of a run has its own folder."""
        place = _place(model.name, model.number)
        card = model.complete(run_id, place)
        for file in model.files():
            self.log_file(run_id, file, f"{place}/{file.relative_to(model.folder).as_posix()}")
        noted = {"run_id": run_id, "model_json": json.dumps(card)}
        with contextlib.suppress(Rejected):  # the model is there without that note too
            self._exporter.call("POST", "runs/log-model", wire.body(noted))

    def register_model(self, run_id: str, wanted: Registration) -> None:
        """See `Repository`; by the run's folder, in which the workspace looks for a model."""
        call = self._exporter.call
        run = call("GET", "runs/get", params={"run_id": run_id})
        root = wire.at(run, "run", "info", "artifact_uri")
        source = f"{root}/{_place(wanted.name, wanted.number)}"
        try:
            call("POST", "registered-models/create", wire.body({"name": wanted.registered_name}))
        except Rejected as refusal:
            if refusal.code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = call("GET", "model-versions/search", params={"filter": f"run_id='{run_id}'"})
        version = {"name": wanted.registered_name, "source": source, "run_id": run_id}
        if not any(version.items() <= each.items() for each in known.get("model_versions", ())):
            call("POST", "model-versions/create", wire.body(version))


def _place(name: str, number: int) -> str:
    return name if number <= 1 else f"{name}-{number}"
