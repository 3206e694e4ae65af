"""Sign-in, ARM and discovery: what a client asks before it knows where the workspace is."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.azureml.place import API_HOST, ARM_HOST, LOGIN, REGION, Place
from tests.azureml.tokens import ARM, Tokens, audience_of

if TYPE_CHECKING:
    from starlette.requests import Request


class Login:
    """The tenant's token endpoint."""

    def __init__(self, place: Place, tokens: Tokens) -> None:
        self._place = place
        self._tokens = tokens
        self.routes = [
            Route("/{tenant}/v2.0/.well-known/openid-configuration", self.configuration),
            Route("/common/discovery/instance", self.instance),
            Route("/{tenant}/oauth2/v2.0/token", self.token, methods=["POST"]),
        ]

    async def configuration(self, request: Request) -> Response:
        """Where the tenant's endpoints are."""
        tenant = f"https://{LOGIN}/{request.path_params['tenant']}"
        return JSONResponse(
            {
                "issuer": f"{tenant}/v2.0",
                "authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize",
                "token_endpoint": f"{tenant}/oauth2/v2.0/token",
                "device_authorization_endpoint": f"{tenant}/oauth2/v2.0/devicecode",
            }
        )

    async def instance(self, request: Request) -> Response:
        """Which authorities are one cloud."""
        return JSONResponse(
            {
                "tenant_discovery_endpoint": (
                    f"https://{LOGIN}/common/v2.0/.well-known/openid-configuration"
                ),
                "metadata": [
                    {
                        "preferred_network": LOGIN,
                        "preferred_cache": "login.windows.net",
                        "aliases": [LOGIN, "login.windows.net", "sts.windows.net"],
                    }
                ],
            }
        )

    async def token(self, request: Request) -> Response:
        """A token for the service principal, for the resource that it asks for."""
        form = dict(parse_qsl((await request.body()).decode()))
        place = self._place
        if request.path_params["tenant"] != place.tenant:
            return _no_token(400, "invalid_request", "AADSTS90002: Tenant not found.")
        if form.get("grant_type") != "client_credentials":
            return _no_token(400, "unsupported_grant_type", "AADSTS70003: Unsupported grant type.")
        if form.get("client_id") != place.client_id:
            return _no_token(400, "unauthorized_client", "AADSTS700016: Application not found.")
        if form.get("client_secret") != place.secret:
            said = "AADSTS7000215: Invalid client secret provided."
            return _no_token(401, "invalid_client", said)
        lifetime = int(self._tokens.lifetime)
        audience = audience_of(form.get("scope", ""))
        token = self._tokens.issue(audience, appid=place.client_id, oid=place.client_id)
        return JSONResponse(
            {
                "token_type": "Bearer",
                "expires_in": lifetime,
                "ext_expires_in": lifetime,
                "access_token": token,
            }
        )


class Arm:
    """The resource manager: which subscriptions there are, and what a workspace is."""

    audiences = ARM

    def __init__(self, place: Place) -> None:
        self._place = place
        self.routes = [
            Route("/metadata/endpoints", self.clouds),
            Route("/subscriptions", self.subscriptions),
            Route(
                "/subscriptions/{subscription}/resourceGroups/{group}"
                "/providers/Microsoft.MachineLearningServices/workspaces/{name}",
                self.workspace,
            ),
        ]

    async def clouds(self, request: Request) -> Response:
        """The endpoints of the cloud, in the form that ``AZUREML_CURRENT_CLOUD`` spares."""
        return JSONResponse(
            {
                "galleryEndpoint": "https://gallery.azure.com/",
                "graphEndpoint": "https://graph.windows.net/",
                "portalEndpoint": "https://portal.azure.com/",
                "authentication": {
                    "loginEndpoint": f"https://{LOGIN}/",
                    "audiences": ["https://management.core.windows.net/", f"https://{ARM_HOST}/"],
                },
            }
        )

    async def subscriptions(self, request: Request) -> Response:
        """The one subscription."""
        place = self._place
        return JSONResponse(
            {
                "value": [
                    {
                        "id": f"/subscriptions/{place.subscription}",
                        "subscriptionId": place.subscription,
                        "tenantId": place.tenant,
                        "displayName": "Team",
                        "state": "Enabled",
                        "authorizationSource": "RoleBased",
                    }
                ]
            }
        )

    async def workspace(self, request: Request) -> Response:
        """The workspace, as ARM describes it."""
        place = self._place
        if request.url.path.lower() != place.scope.lower():
            name = request.path_params["name"]
            said = (
                f"The Resource 'Microsoft.MachineLearningServices/workspaces/{name}' "
                f"under resource group '{request.path_params['group']}' was not found."
            )
            return JSONResponse({"error": {"code": "ResourceNotFound", "message": said}}, 404)
        group = f"/subscriptions/{place.subscription}/resourceGroups/{place.resource_group}"
        return JSONResponse(
            {
                "id": place.scope,
                "name": place.name,
                "type": "Microsoft.MachineLearningServices/workspaces",
                "location": REGION,
                "tags": {},
                "sku": {"name": "Basic", "tier": "Basic"},
                "identity": {
                    "type": "SystemAssigned",
                    "principalId": place.client_id,
                    "tenantId": place.tenant,
                },
                "properties": {
                    "friendlyName": place.name,
                    "workspaceId": place.workspace_id,
                    "creationTime": "2026-01-01T00:00:00.0000000Z",
                    "provisioningState": "Succeeded",
                    "storageAccount": (
                        f"{group}/providers/Microsoft.Storage/storageAccounts/standinstorage"
                    ),
                    "keyVault": f"{group}/providers/Microsoft.KeyVault/vaults/standinvault",
                    "applicationInsights": (
                        f"{group}/providers/Microsoft.Insights/components/standininsights"
                    ),
                    "discoveryUrl": f"https://{API_HOST}/discovery",
                    "mlFlowTrackingUri": f"azureml://{API_HOST}/mlflow/v1.0{place.scope}",
                    "hbiWorkspace": False,
                    "publicNetworkAccess": "Enabled",
                    "v1LegacyMode": False,
                },
            }
        )


async def discovery(request: Request) -> Response:
    """Where the services of the region are; asked without a token."""
    names = ("api", "experimentation", "history", "hyperdrive", "modelmanagement", "pipelines")
    services = dict.fromkeys(names, f"https://{API_HOST}")
    return JSONResponse({**services, "studio": "https://ml.azure.com"})


def _no_token(status: int, error: str, description: str) -> Response:
    return JSONResponse({"error": error, "error_description": description}, status)
