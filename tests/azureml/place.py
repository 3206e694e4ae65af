"""Where the workspace is and who may enter: the names that client and service agree on."""

from __future__ import annotations

from typing import NamedTuple

LOGIN = "login.microsoftonline.com"
ARM_HOST = "management.azure.com"
REGION = "eastus"
API_HOST = f"{REGION}.api.azureml.ms"
BLOB_HOST = "standinstorage.blob.core.windows.net"
NAMES = (LOGIN, ARM_HOST, API_HOST, BLOB_HOST)
"""Every name of Azure that a client may ask for."""


class Place(NamedTuple):
    """One workspace and the service principal that may use it."""

    subscription: str = "6f9c0f0e-1111-4222-8333-444455556666"
    resource_group: str = "team-resources"
    name: str = "team-workspace"
    workspace_id: str = "0d5c2b1a-aaaa-4bbb-8ccc-ddddeeeeffff"
    tenant: str = "72f988bf-0000-4000-8000-2d7cd011db47"
    client_id: str = "11112222-3333-4444-8555-666677778888"
    secret: str = "the~secret.of-the_service-principal"

    @property
    def scope(self) -> str:
        """The workspace's path in ARM."""
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"
        )

    @property
    def uri(self) -> str:
        """The workspace's tracking URI."""
        return f"azureml://{API_HOST}/mlflow/v2.0{self.scope}"
