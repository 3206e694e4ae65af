"""Where a workspace is: its resource, the host of its region, and the tracking URI of both."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

SCHEME = "azureml"
_PREFIX = re.compile(r"/mlflow/v[\d.]+(?=/)")
_RESOURCE = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<name>[^/]+)/?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace of Azure Machine Learning."""

    subscription_id: str
    resource_group: str
    name: str
    host: str = ""
    """Of the service in the workspace's region, such as ``eastus.api.azureml.ms``; empty where
    nobody has asked for it yet."""

    @classmethod
    def parse(cls, uri: str) -> Workspace:
        """The workspace of a tracking URI.

        Raises `ValueError` where the URI names none.
        """
        parts = urlsplit(uri)
        prefix = _PREFIX.match(parts.path)
        found = _RESOURCE.fullmatch(parts.path, prefix.end()) if prefix else None
        if parts.scheme != SCHEME or found is None:
            raise ValueError(
                f"{uri!r} names no workspace; Workspace.get_mlflow_tracking_uri() gives one like "
                f"{cls('ID', 'GROUP', 'NAME', 'REGION.api.azureml.ms').uri}"
            )
        return cls(found["subscription"], found["group"], found["name"], parts.netloc)

    @classmethod
    def of_resource(cls, path: str) -> Workspace:
        """The workspace with a resource id. Raises `ValueError` where that is none's."""
        found = _RESOURCE.fullmatch(path)
        if found is None:
            raise ValueError(f"{path!r} is no workspace's resource id")
        return cls(found["subscription"], found["group"], found["name"])

    @property
    def path(self) -> str:
        """The resource, as Azure's services name it."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"
        )

    @property
    def uri(self) -> str:
        """The tracking URI; without a host MLflow's own client cannot use it."""
        return f"{SCHEME}://{self.host}/mlflow/v2.0{self.path}"

    def is_same(self, other: Workspace) -> bool:
        """Whether both name one workspace, known host or not."""
        return self.path.lower() == other.path.lower()

    def at(self, host: str) -> Workspace:
        """The same workspace, with the host of its region."""
        return replace(self, host=host)

    def studio(self, run_id: str) -> str:
        """The page of a run in Azure's studio."""
        return f"https://ml.azure.com/runs/{run_id}?wsid={self.path}"


def is_workspace(uri: str) -> bool:
    """Whether a tracking URI names a workspace, and nothing else of that scheme."""
    try:
        Workspace.parse(uri)
    except ValueError:
        return False
    return True


def lacks_host(uri: str) -> bool:
    """Whether a tracking URI names a workspace and not its host, so that MLflow cannot use it."""
    return is_workspace(uri) and not Workspace.parse(uri).host
