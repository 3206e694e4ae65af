"""The ways to a token that need no secret of the client: identity, Azure CLI, a notebook."""

from __future__ import annotations

import secrets
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.azureml import notebook

if TYPE_CHECKING:
    from starlette.requests import Request

    from tests.azureml.place import Place
    from tests.azureml.tokens import Tokens

_AZ = """\
    #!{python}
    import json, ssl, sys, urllib.request

    asked = dict(zip(sys.argv, sys.argv[1:]))
    resource = (asked.get("--resource") or asked["--scope"]).removesuffix("/.default")
    request = urllib.request.Request("{url}?resource=" + resource, headers={{"secret": "{secret}"}})
    context = ssl.create_default_context(cafile="{ca}")
    with urllib.request.urlopen(request, context=context) as reply:
        given = json.load(reply)
    print(json.dumps({{
        "accessToken": given["access_token"],
        "expires_on": int(given["expires_on"]),
        "tokenType": "Bearer",
        "tenant": "{tenant}",
    }}))
"""


class Identity:
    """The endpoint that a compute of Azure ML has for its managed identity, at `path`."""

    path = "/msi/token"

    def __init__(self, place: Place, tokens: Tokens) -> None:
        self._place = place
        self._tokens = tokens
        self._secret = secrets.token_hex()
        self.routes = [Route(self.path, self.token)]

    async def token(self, request: Request) -> Response:
        """A token for a resource, for who knows the compute's secret."""
        if request.headers.get("secret") != self._secret:
            return JSONResponse({"error": "invalid_request"}, 401)
        resource = request.query_params["resource"]
        token = self._tokens.issue(resource, appid=self._place.client_id)
        lifetime = int(self._tokens.lifetime)
        return JSONResponse(
            {
                "access_token": token,
                "expires_on": str(int(self._tokens.now()) + lifetime),
                "resource": resource,
                "token_type": "Bearer",
            }
        )

    def environ(self, origin: str) -> dict[str, str]:
        """What such a compute has in its environment; `origin` is where this is served."""
        return {"MSI_ENDPOINT": f"{origin}{self.path}", "MSI_SECRET": self._secret}

    def install_notebook(self, folder: Path, origin: str, ca: Path) -> dict[str, str]:
        """A notebook of Azure Databricks at which somebody has signed in; its variables."""
        url = f"{origin}{self.path}?resource=https://management.azure.com"
        return notebook.install(folder, url, self._secret, ca)

    def install_az(self, folder: Path, origin: str, ca: Path) -> None:
        """An ``az`` in `folder` that somebody has signed in with."""
        script = textwrap.dedent(_AZ).format(
            python=sys.executable,
            url=f"{origin}{self.path}",
            secret=self._secret,
            ca=ca,
            tenant=self._place.tenant,
        )
        folder.mkdir()
        path = folder / "az"
        path.write_text(script)
        path.chmod(0o755)
