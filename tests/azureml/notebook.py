"""A notebook of Azure Databricks, as far as its Python shell shows itself to packages.

Not the runtime itself: what Azure's packages, MLflow and autolog look for in it.
"""

from __future__ import annotations

import json
from pathlib import Path

_SHELL = '''
"""What the runtime does before the first cell: `dbutils` is there, with the person's token."""

import builtins
import json
import ssl
import sys
import urllib.request
from types import ModuleType, SimpleNamespace

_ASK = json.loads({ask!r})


class _Option:
    def __init__(self, value):
        self._value = value

    def isDefined(self):
        return self._value is not None

    def get(self):
        if self._value is None:
            raise RuntimeError("None.get")
        return self._value


class _Context:
    """Of the command at work; a new one has a fresh token."""

    def adlsAadToken(self):
        request = urllib.request.Request(_ASK["url"], headers={{"secret": _ASK["secret"]}})
        context = ssl.create_default_context(cafile=_ASK["ca"])
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({{}}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(request, timeout=20) as reply:
            return _Option(json.load(reply)["access_token"])

    def apiUrl(self):
        return _Option(None)

    def apiToken(self):
        return _Option(None)


class _Notebook:
    def getContext(self):
        return _Context()


class _EntryPoint:
    def getDbutils(self):
        return SimpleNamespace(notebook=_Notebook)

    def getLogger(self):
        return SimpleNamespace(logUsage=lambda *_: None)


_entry_point = _EntryPoint()
dbutils = SimpleNamespace(
    entry_point=_entry_point, notebook=SimpleNamespace(entry_point=_entry_point)
)
builtins.dbutils = dbutils

_names = {{"dbutils": dbutils}}
_events = SimpleNamespace(register=lambda *_: None, unregister=lambda *_: None)
_shell = SimpleNamespace(user_ns=_names, ns_table={{"user_global": _names}}, events=_events)
ipython = ModuleType("IPython")
ipython.get_ipython = lambda: _shell
sys.modules["IPython"] = ipython

_context = SimpleNamespace(
    isInNotebook=True,
    isInJob=False,
    isInCluster=True,
    notebookPath="/Users/someone@example.com/train",
    notebookId="7",
    clusterId="1127-000000-cluster",
)
runtime = ModuleType("dbruntime")
replies = ModuleType("dbruntime.databricks_repl_context")
replies.get_context = lambda: _context
sys.modules["dbruntime"], sys.modules["dbruntime.databricks_repl_context"] = runtime, replies
'''

START = "import databricks_shell\n"
"""The first line of a program that runs as a notebook does."""


def install(folder: Path, url: str, secret: str, ca: Path) -> dict[str, str]:
    """Write the shell's module; the variables that a process of the driver has.

    `url` gives tokens of the person at the notebook to who knows `secret`.
    """
    folder.mkdir()
    ask = json.dumps({"url": url, "secret": secret, "ca": str(ca)})
    (folder / "databricks_shell.py").write_text(_SHELL.format(ask=ask))
    return {
        "PYTHONPATH": str(folder),
        "DATABRICKS_RUNTIME_VERSION": "15.4",
        # No service of the cloud's machines is asked for an identity: the driver has none.
        "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
    }
