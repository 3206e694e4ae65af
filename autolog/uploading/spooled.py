"""A model in the journal, and the folder that MLflow expects of it.

``MLmodel`` and the files of its environment are written from the description, as MLflow's flavors
write them: https://mlflow.org/docs/latest/ml/model/#storage-format. The model is not loaded.
"""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from autolog.exporters import Rejected
from autolog.journal import files
from autolog.records import model_folder

_CONDA, _PYTHON, _REQUIREMENTS = "conda.yaml", "python_env.yaml", "requirements.txt"
MLMODEL = "MLmodel"


@dataclass(frozen=True)
class SpooledModel:
    """A model as the training process has left it."""

    folder: Path
    """What it has serialised, where MLflow's flavor expects it."""
    key: str
    """Unique in the world."""
    name: str
    number: int
    """Which of the run's models of that name, from 1."""
    timestamp: int
    """Milliseconds since the epoch."""
    step: int
    """The epoch that it was trained to."""
    description: dict[str, Any]

    @classmethod
    def read(cls, file: Path, name: str) -> SpooledModel:
        """The model of a description. Raises `Rejected` where that is none, or is not whole."""
        try:
            content = json.loads(files.read(file))
            content |= {field: dict(content[field]) for field in ("flavors", "packages")}
            content["python"] = str(content["python"])
            folder = Path(model_folder(str(file)))
            model = cls(
                folder,
                str(content["key"]),
                name,
                int(content["number"]),
                int(content["timestamp"]),
                int(content["step"]),
                content,
            )
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise Rejected(f"no model in the journal: {error}") from error
        model.files()
        return model

    def files(self) -> list[Path]:
        """Every file of the folder. Raises `Rejected` for anything that is no file of its own."""
        found = []
        for path in sorted(self.folder.rglob("*")):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                found.append(path)
            elif not stat.S_ISDIR(status.st_mode):
                raise Rejected(f"model with a file that is elsewhere: {path.name}")
        if not found:
            raise Rejected("no model in the journal")
        return found

    def complete(self, run_id: str, place: str, model_id: str | None = None) -> dict[str, Any]:
        """Write the other files of the folder, the same ones each time; what ``MLmodel`` says.

        `place` is where the model will be: its path in the run, or the address of a logged model.
        """
        written = {MLMODEL, _CONDA, _PYTHON, _REQUIREMENTS}
        size = sum(f.stat().st_size for f in self.files() if f.name not in written)
        card = self._card(run_id, place, model_id, size)
        requirements = self._requirements()
        python = str(self.description["python"])
        conda = {
            "name": "mlflow-env",
            "channels": ["conda-forge"],
            "dependencies": [f"python={python}", "pip", {"pip": requirements}],
        }
        environment = {
            "python": python,
            "build_dependencies": ["pip", "setuptools", "wheel"],
            "dependencies": [f"-r {_REQUIREMENTS}"],
        }
        for name, content in ((MLMODEL, card), (_CONDA, conda), (_PYTHON, environment)):
            (self.folder / name).write_text(yaml.safe_dump(content, allow_unicode=True), "utf-8")
        (self.folder / _REQUIREMENTS).write_text("\n".join(requirements) + "\n", "utf-8")
        return card

    def _card(self, run_id: str, place: str, model_id: str | None, size: int) -> dict[str, Any]:
        flavors = self.description["flavors"]
        if "python_function" in flavors:
            flavors["python_function"] |= {
                "env": {"conda": _CONDA, "virtualenv": _PYTHON},
                "python_version": self.description["python"],
            }
        made = datetime.fromtimestamp(self.timestamp / 1000, timezone.utc)
        card = {
            "artifact_path": place,
            "flavors": flavors,
            "mlflow_version": _mlflow_version(),
            "model_size_bytes": size,
            "model_uuid": model_id or self.key,
            "run_id": run_id,
            "utc_time_created": f"{made:%Y-%m-%d %H:%M:%S.%f}",
        }
        optional = {
            "model_id": model_id,
            "signature": self.description.get("signature"),
            "saved_input_example_info": self.description.get("example"),
        }
        return card | {name: value for name, value in optional.items() if value}

    def _requirements(self) -> list[str]:
        packages = {"mlflow": _mlflow_version(), **self.description["packages"]}
        return [f"{name}=={version}" for name, version in packages.items()]


class Registration(NamedTuple):
    """A version that is wanted in the model registry."""

    name: str
    """Of the run's model."""
    number: int
    """Which of the run's models of that name, from 1; 0 where ours logged none."""
    registered_name: str

    @classmethod
    def read(cls, file: Path, name: str) -> Registration:
        """What a spooled file asks for. Raises `Rejected` where it is none."""
        try:
            content = json.loads(files.read(file))
            number = int(content["number"])
            return cls(name, number, str(content["registered_name"]))
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise Rejected(f"no registration in the journal: {error}") from error


def _mlflow_version() -> str:
    try:
        return metadata.version("mlflow")
    except metadata.PackageNotFoundError:
        return metadata.version("mlflow-skinny")  # what a cluster of Databricks may have
