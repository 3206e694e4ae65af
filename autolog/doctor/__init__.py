"""`autolog doctor`: what autolog finds on this machine, and what is wrong with it."""

from __future__ import annotations

import importlib.util
import json
import netrc
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass, url2pathname

import autolog
from autolog import check, credentials, environment, hooks, settings, targets
from autolog.doctor import workspace
from autolog.doctor.finding import Finding
from autolog.journal.root import filesystem, is_remote, journal_root
from autolog.targets import Target
from autolog.workspace import from_config
from autolog.workspace.address import SCHEME, Workspace, is_workspace

_DISTRIBUTION = "mlflow-autolog"
_REINSTALL = f"pip install --force-reinstall {_DISTRIBUTION}"


def examine() -> list[Finding]:
    """Look at everything; each question to a target is asked for 20 s at most."""
    parts = (_versions, _package, _integrations, _settings, _journals, _target, _config)
    return [finding for part in parts for finding in part()]


# -- what is installed -----------------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    yield Finding("autolog", f"{autolog.__version__} in {_home()}")
    yield Finding("python", f"{sys.version.split()[0]} at {sys.executable}")
    mlflow = _version("mlflow") or _version("mlflow-skinny")
    remedy = "" if mlflow else "pip install mlflow"
    yield Finding("mlflow", mlflow or "not installed", remedy)


def _package() -> Iterator[Finding]:
    """Whether the package that runs is ours, whole, and alone."""
    owners = set(metadata.packages_distributions().get("autolog", [])) - {_DISTRIBUTION}
    if owners:
        names = " ".join(sorted(owners))
        yield Finding(
            "package",
            f"{names} installs files named autolog as well",
            f"pip uninstall {names} && {_REINSTALL}",
        )
    places = _installed_places()
    if not places:
        remedy = f"pip install {_DISTRIBUTION}"
        yield Finding("package", f"{_DISTRIBUTION} is not installed", remedy)
    elif _home() not in places:
        where = " and ".join(map(str, places))
        yield Finding(
            "package",
            f"imported from {_home()}, installed in {where}",
            f"remove or rename {_home()}, or take its folder off PYTHONPATH",
        )
    missing = [name for name in set(hooks.INTEGRATIONS.values()) if not _exists(name)]
    if missing:
        yield Finding("package", f"incomplete: no {', '.join(sorted(missing))}", _REINSTALL)


def _home() -> Path:
    return Path(autolog.__file__).resolve().parent


def _installed_places() -> list[Path]:
    """The folders in which our distribution's package may be."""
    try:
        distribution = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return []
    places = [Path(str(distribution.locate_file("autolog")))]
    source = json.loads(distribution.read_text("direct_url.json") or "{}")
    if source.get("dir_info", {}).get("editable"):
        places = [Path(url2pathname(unquote(urlsplit(source["url"]).path))) / "autolog"]
    return [place.resolve() for place in places]


def _integrations() -> Iterator[Finding]:
    found = []
    distributions = metadata.packages_distributions()
    for module in sorted(hooks.known()):
        package = module.partition(".")[0]
        if _exists(package):
            names = distributions.get(package, [])
            found.append(f"{module} {_version(names[0]) if names else ''}".strip())
    text = ", ".join(found) or "nothing: no supported framework is installed"
    yield Finding("enable() instruments", text)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


# -- what is set -----------------------------------------------------------------------------------


def _settings() -> Iterator[Finding]:
    chosen, origins = settings.resolve({}, environment.variables())
    for name, origin in origins.items():
        if origin.startswith("default, since"):
            remedy = f"correct or unset {settings.variable(name)}"
            yield Finding("setting", f"{name} is at its {origin}", remedy)
    if chosen.disabled:
        yield Finding("setting", "autolog is switched off", "unset AUTOLOG_DISABLED")


def _journals() -> Iterator[Finding]:
    chosen, _ = settings.resolve({}, environment.variables())
    try:
        root = journal_root(chosen.dir)
    except OSError as error:
        yield Finding("journals", str(error), "set AUTOLOG_DIR to a writable folder")
        return
    kind, free = filesystem(root), shutil.disk_usage(root).free
    remedy = ""
    if chosen.dir is not None and root != chosen.dir:
        remedy = f"make {chosen.dir} writable, or set AUTOLOG_DIR to another folder"
    elif is_remote(root):
        remedy = "set AUTOLOG_DIR to a folder on a local disk"
    elif free < 2 * chosen.segment_size:
        remedy = "make room there, or set AUTOLOG_DIR to a folder with more"
    yield Finding("journals", f"{root} ({kind or 'unknown'}), {free / 1e9:.1f} GB free", remedy)


# -- where runs go ---------------------------------------------------------------------------------


def _target() -> Iterator[Finding]:
    where, environ = targets.current(), environment.variables()
    origin = "MLFLOW_TRACKING_URI" if environ.get("MLFLOW_TRACKING_URI") else "mlflow's default"
    yield Finding("target", f"{where.public_uri} ({origin})")
    if urlsplit(where.uri).scheme == SCHEME:
        yield from _workspace(where.uri)
        return
    if where.uri.startswith("http"):
        yield _credential(where.uri, environ)
        yield _proxy(where.uri)
    yield _answers(where)


def _workspace(uri: str) -> Iterator[Finding]:
    try:
        named = Workspace.parse(uri)
    except ValueError:
        remedy = "set MLFLOW_TRACKING_URI to what Workspace.get_mlflow_tracking_uri() gives"
        yield Finding("workspace", "the target names none; a registry has no runs", remedy)
    else:
        yield from workspace.examine(named)


def _config() -> Iterator[Finding]:
    """The workspace of a ``config.json`` here or above, where it is not the target anyway."""
    try:
        named = from_config()
    except (OSError, ValueError):
        return
    if not is_workspace(targets.current().uri):
        yield Finding("config.json", f"{named.name}, for programs that use from_config()")
        yield from workspace.examine(named)


def _answers(where: Target) -> Finding:
    problem = check.problem_of(credentials.shipper_environment(where.uri))
    if problem:
        remedy = "correct MLFLOW_TRACKING_URI or the credential, or start the server"
        if where.is_local:
            remedy = "set MLFLOW_TRACKING_URI, or run in a folder that is writable"
        return Finding("target answers", problem, remedy)
    return Finding("target answers", "yes")


def _credential(uri: str, environ: Mapping[str, str]) -> Finding:
    parts = urlsplit(uri)
    saved = Path.home() / ".mlflow" / "credentials"
    halves = [name for name in _PAIR if environ.get(name)]
    if len(halves) == 1 and not saved.exists():
        (other,) = set(_PAIR) - set(halves)
        return Finding("credential", f"{halves[0]} without {other}", f"set {other}")
    kinds = [
        ("user name and password in the tracking URI", bool(parts.username)),
        (f"user name and password ({' and '.join(_PAIR)})", len(halves) == 2),
        (f"user name and password ({saved})", saved.exists()),
        ("bearer token (MLFLOW_TRACKING_TOKEN)", bool(environ.get("MLFLOW_TRACKING_TOKEN"))),
        ("a plugin (MLFLOW_TRACKING_AUTH)", bool(environ.get("MLFLOW_TRACKING_AUTH"))),
        ("AWS signature", bool(environ.get("MLFLOW_TRACKING_AWS_SIGV4"))),
        ("client certificate", bool(environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"))),
        ("user name and password (netrc)", _in_netrc(parts.hostname or "")),
    ]
    return Finding("credential", next((kind for kind, is_used in kinds if is_used), "none"))


_PAIR = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


def _in_netrc(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _proxy(uri: str) -> Finding:
    parts = urlsplit(uri)
    proxy = getproxies().get(parts.scheme)
    if not proxy:
        return Finding("proxy", "none")
    if proxy_bypass(parts.hostname or ""):
        return Finding("proxy", f"none for {parts.hostname} (no_proxy)")
    return Finding("proxy", targets.without_userinfo(proxy))
