"""Every setting: its environment variable, default, check and origin.

This is the only file that reads ``os.environ``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, urlsplit, urlunsplit

MODES = ("process", "thread", "offline")
_TRACKING_URI = "MLFLOW_TRACKING_URI"
_EXPERIMENT_NAME, _EXPERIMENT_ID = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"
_PROMISE = "autolog-experiment:"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


class SettingError(ValueError):
    """A setting has a value that cannot be used; the message names it and the remedy."""


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError("use 1 or 0")


def _mode(value: object) -> str:
    if value not in MODES:
        raise ValueError(f"use one of {', '.join(MODES)}")
    return str(value)


def _seconds(value: object) -> float:
    seconds = float(cast("float", value))
    if not 0 <= seconds < float("inf"):
        raise ValueError("use a number of seconds, 0 or more")
    return seconds


def _rate(value: object) -> float:
    rate = float(cast("float", value))
    if not 0 < rate < float("inf"):
        raise ValueError("use a number of megabytes a second, more than 0")
    return rate


def _at_least(minimum: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        number = int(cast("int", value))
        if number != float(cast("float", value)) or number < minimum:
            raise ValueError(f"use a whole number, {minimum} or more")
        return number

    return check


def _folder(value: object) -> Path:
    return Path(os.fspath(cast("str", value))).expanduser().absolute()


def _tags(value: object) -> dict[str, str]:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, Mapping):
        raise TypeError("use a dict of tag names and texts, in the variable as JSON")
    return {str(key): str(text) for key, text in value.items()}


def _setting(default: object, check: Callable[[object], object], text: str) -> Any:
    return field(default=default, metadata={"check": check, "text": text})


@dataclass(frozen=True)
class Settings:
    """The settings of this process; `resolve` makes one and knows where each value is from."""

    disabled: bool = _setting(False, _boolean, "do nothing at all; every call is accepted")
    mode: str = _setting("process", _mode, "who sends: a process of its own, a thread, or nobody")
    strict: bool = _setting(False, _boolean, "raise on bad input, unsent or refused values")
    silent: bool = _setting(False, _boolean, "print nothing")
    dir: Path | None = _setting(None, _folder, "folder of the journals; a local disk")  # noqa: RUF009
    exclusive: bool = _setting(False, _boolean, "hooks leave runs that the user opened alone")
    extra_tags: Mapping[str, str] | None = _setting(
        None, _tags, "tags for every run we open; JSON in the variable"
    )
    log_every_n_steps: int | None = _setting(
        None, _at_least(1), "batch values too: every n-th optimizer step"
    )
    max_tuning_runs: int = _setting(
        5, _at_least(0), "how many of a search's candidates become child runs, the best first"
    )
    training_metrics: bool = _setting(
        False, _boolean, "scikit-learn: predict the training data after a fit, and log how well"
    )
    checkpoint: bool = _setting(
        False, _boolean, "Lightning: log the best and the last checkpoints at the end of a fit"
    )
    log_models: bool = _setting(True, _boolean, "log the trained model at the end of a training")
    registered_model_name: str | None = _setting(
        None, str, "make a version of the trained model in the model registry, under this name"
    )
    log_model_signatures: bool = _setting(
        True, _boolean, "with a model, the schemas of what it takes and gives"
    )
    log_input_examples: bool = _setting(
        False, _boolean, "with a model, the first rows of its training data"
    )
    model_megabytes: int = _setting(256, _at_least(1), "largest model that is logged, in MB")
    model_seconds: float = _setting(2.0, _seconds, "longest time that serialising one may take")
    upload_mb_per_second: float | None = _setting(
        None, _rate, "most of the network that files may take, in 10⁶ bytes a second"
    )
    log_datasets: bool = _setting(
        True, _boolean, "log name, digest, schema and shape of what a training is given"
    )
    batch_seconds: float = _setting(1.0, _seconds, "longest time a value waits to be sent")
    exit_timeout: float = _setting(10.0, _seconds, "wait at exit for a remote server")
    exit_timeout_local: float = _setting(
        2.0, _seconds, "wait at exit for a local target, or a server known to be down"
    )
    exit_timeout_ephemeral: float = _setting(
        60.0, _seconds, "wait at exit where the machine goes away with the process"
    )
    linger: float = _setting(
        3600.0, _seconds, "how long a shipper tries on after its last process ended"
    )
    journal_limit: int = _setting(1 << 30, _at_least(1 << 20), "unsent bytes a process may keep")
    segment_size: int = _setting(8 << 20, _at_least(1 << 16), "bytes of a journal file")


class Origin(NamedTuple):
    """A setting's value and where it came from, as `autolog.config` shows it."""

    value: object
    origin: str


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"AUTOLOG_{name.upper()}"


def resolve(
    arguments: Mapping[str, object], environ: Mapping[str, str]
) -> tuple[Settings, dict[str, str]]:
    """Settings from arguments (None = not given), else the environment, else the defaults.

    Returns the settings and the origin of each.
    An unusable argument raises `SettingError`; an unusable variable falls back to the default,
    because a typo in a job's environment must not stop a training, and its origin says so.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for spec in fields(Settings):
        name, check = spec.name, spec.metadata["check"]
        given, text = arguments.get(name), environ.get(variable(name))
        origins[name] = "default"
        if given is not None:
            try:
                values[name] = check(given)
            except (TypeError, ValueError) as error:
                raise SettingError(f"{name}={given!r}: {error}") from None
            origins[name] = "argument"
        elif text:
            try:
                values[name] = check(text)
                origins[name] = variable(name)
            except (TypeError, ValueError) as error:
                origins[name] = f"default, since {variable(name)}={text!r}: {error}"
    return Settings(**values), origins


def environment() -> Mapping[str, str]:
    """The environment of this process, live."""
    return os.environ


def export(name: str, value: str | None) -> None:
    """Set or remove a variable of this process, for the processes it starts."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def mlflow_module() -> Any:
    """The mlflow package if the user's program has imported it, else None."""
    module = sys.modules.get("mlflow")
    return module if hasattr(module, "active_run") else None


# -- where runs go -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """An MLflow tracking URI made absolute, with the experiment that new runs go to."""

    uri: str
    experiment: str | None = None
    experiment_id: str | None = None

    @property
    def public_uri(self) -> str:
        """The URI without user name and password: what may stand on disk and on a terminal."""
        return without_userinfo(self.uri)

    @property
    def is_local(self) -> bool:
        """True when no network stands between us and the store."""
        return is_local(self.uri)


_PLATFORMS = ("databricks", "databricks-uc", "uc")
"""Tracking URIs of MLflow that are neither a path nor have a scheme."""


def is_local(uri: str) -> bool:
    """True for an absolute tracking URI of a folder or a database file on this machine."""
    return urlsplit(uri).scheme in ("file", "sqlite")


def without_userinfo(uri: str) -> str:
    """A URI without its user name and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def target(experiment: str | None = None) -> Target:
    """Where a run that starts now goes.

    What ``mlflow.set_tracking_uri`` and ``set_experiment`` set in this process, else the
    environment, else MLflow's own default rule. No network call, no import of mlflow.
    """
    uri = absolute(str(tracking_uri().value))
    if experiment:
        return Target(uri, experiment)
    chosen, origin = active_experiment()
    if chosen is None:
        return Target(uri)
    if origin == _EXPERIMENT_NAME:
        return Target(uri, str(chosen))
    return Target(uri, *name_and_id(str(chosen)))


def promised_id(name: str) -> str:
    """What stands for the id of an experiment while the server does not answer for it."""
    return f"{_PROMISE}{name}"


def name_and_id(experiment_id: str) -> tuple[str | None, str | None]:
    """The name of an experiment with a `promised_id`, else the id: the other one is None."""
    if experiment_id.startswith(_PROMISE):
        return experiment_id.removeprefix(_PROMISE), None
    return None, experiment_id


def tracking_uri() -> Origin:
    """The tracking URI of mlflow in this process, as it was given."""
    mlflow, named = mlflow_module(), os.environ.get(_TRACKING_URI)
    if mlflow is not None and mlflow.is_tracking_uri_set():
        chosen = mlflow.get_tracking_uri()
        return Origin(chosen, _TRACKING_URI if chosen == named else "mlflow.set_tracking_uri")
    return Origin(named, _TRACKING_URI) if named else Origin(_default_uri(), "mlflow's default")


def active_experiment() -> Origin:
    """The experiment of mlflow in this process: an id, or a name where that is its origin."""
    fluent = sys.modules.get("mlflow.tracking.fluent")
    for value, origin in (
        (getattr(fluent, "_active_experiment_id", None), "mlflow.set_experiment"),
        (os.environ.get(_EXPERIMENT_NAME), _EXPERIMENT_NAME),
        (os.environ.get(_EXPERIMENT_ID), _EXPERIMENT_ID),
    ):
        if value:
            return Origin(value, origin)
    return Origin(None, "mlflow's default")


def choose_tracking_uri(uri: str) -> None:
    """Have mlflow, here and in processes that start from now on, use a tracking URI."""
    export(_TRACKING_URI, uri)
    mlflow = mlflow_module()
    if mlflow is not None:
        mlflow.set_tracking_uri(uri)


def choose_experiment(name: str) -> None:
    """Have mlflow, here and in processes that start from now on, use an experiment.

    By variable: ``mlflow.set_experiment`` would ask the server, and wait for it.
    """
    export(_EXPERIMENT_NAME, name)
    export(_EXPERIMENT_ID, None)
    fluent: Any = sys.modules.get("mlflow.tracking.fluent")
    if fluent is not None:
        fluent._active_experiment_id = None  # noqa: SLF001 - there is no public way to unset it


_first_names: dict[str, str] = {}


def use_instead(uri: str, other: str) -> None:
    """Have mlflow use another tracking URI of the same place; for us it keeps its first one."""
    if uri != other:
        _first_names[other] = uri
    if tracking_uri().value == uri:
        choose_tracking_uri(other)


def absolute(uri: str) -> str:
    """A tracking URI that means the same from every working directory."""
    if uri in _PLATFORMS:
        return uri
    if uri in _first_names:
        return _first_names[uri]
    parts = urlsplit(uri)
    if parts.scheme == "sqlite" and uri.startswith("sqlite:///"):
        return "sqlite:///" + str(Path(unquote(uri[len("sqlite:///") :])).absolute())
    if parts.scheme == "":
        return Path(uri).expanduser().absolute().as_uri()
    if parts.scheme == "file" and not parts.path.startswith("/"):
        return Path(uri.removeprefix("file:")).absolute().as_uri()
    return uri


def _default_uri() -> str:
    """MLflow's rule since 3.7: an existing ``./mlruns`` with experiments, else sqlite."""
    try:
        with os.scandir("mlruns") as entries:
            used = any(e.name.isdigit() and os.path.lexists(f"{e.path}/meta.yaml") for e in entries)
    except OSError:
        used = False
    return "mlruns" if used else "sqlite:///mlflow.db"


def adopted_run_id() -> str | None:
    """The run that the platform or the user named for this process, if any."""
    return os.environ.get("MLFLOW_RUN_ID") or run_id_of_job()


def run_id_of_job() -> str | None:
    """The run that Azure ML opened for the job of this process, and ends."""
    return os.environ.get("AZUREML_RUN_ID") or None


def uri_of_job() -> str | None:
    """The tracking URI that Azure ML gives to the job of this process."""
    return os.environ.get(_TRACKING_URI) if run_id_of_job() else None


def restore_job_run() -> None:
    """Have MLflow adopt the run of this process's job, as the first process of the job did.

    MLflow takes MLFLOW_RUN_ID out of the environment there, so that children do not have it.
    """
    run_id, fluent = run_id_of_job(), sys.modules.get("mlflow.tracking.fluent")
    last = getattr(fluent, "_last_active_run_id", None)
    if run_id and (last is None or last.get() is None):
        os.environ.setdefault("MLFLOW_RUN_ID", run_id)


def mlflow_active_run_id() -> str | None:
    """The run that the user's own code has open in MLflow, if any."""
    fluent: Any = sys.modules.get("mlflow.tracking.fluent")
    # Not by mlflow.active_run(), which may name a run of ours.
    stack = getattr(fluent, "_active_run_stack", None)
    active = stack.get() if stack is not None else None
    return str(active[-1].info.run_id) if active else None


def run_name() -> str | None:
    """The name that the environment gives to new runs (``MLFLOW_RUN_NAME``)."""
    return os.environ.get("MLFLOW_RUN_NAME") or None


def rank() -> int:
    """This process's rank: ``RANK`` where ``WORLD_SIZE`` > 1, or that of torch.distributed."""
    return _place()[0]


def world_size() -> int:
    """How many ranks there are: ``WORLD_SIZE`` beside ``RANK``, or that of torch.distributed."""
    return _place()[1]


def _place() -> tuple[int, int]:
    environ = os.environ
    try:
        size = int(environ.get("WORLD_SIZE", "1"))
        if size > 1 and "RANK" in environ:
            return int(environ["RANK"]), size
    except ValueError:
        return 0, 1
    distributed = torch_distributed()
    if distributed is None:
        return 0, 1
    return int(distributed.get_rank()), int(distributed.get_world_size())


def has_rank() -> bool:
    """Whether a launcher, or torch.distributed, gave this process a rank."""
    return "RANK" in os.environ or torch_distributed() is not None


def torch_distributed() -> Any:
    """The module, where this process has joined a group."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed


_CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD MLFLOW_TRACKING_TOKEN MLFLOW_TRACKING_AUTH"
    " MLFLOW_TRACKING_AWS_SIGV4 MLFLOW_TRACKING_INSECURE_TLS MLFLOW_TRACKING_SERVER_CERT_PATH"
    " MLFLOW_TRACKING_CLIENT_CERT_PATH DATABRICKS_HOST DATABRICKS_TOKEN AUTOLOG_TOKENS"
    " AZURE_CLIENT_ID AZURE_CLIENT_SECRET AZURE_CLIENT_CERTIFICATE_PATH AZURE_TENANT_ID"
    " AZURE_FEDERATED_TOKEN_FILE AZUREML_RUN_TOKEN"
).split()


_OF_A_JOB = ("MLFLOW_TRACKING_TOKEN", "AZUREML_RUN_TOKEN")
_FOR_WORKSPACES = (
    *_OF_A_JOB,
    *("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_FEDERATED_TOKEN_FILE"),
)


def has_workspace_credential() -> bool:
    """Whether the environment has a credential for a workspace of Azure ML."""
    return any(os.environ.get(name) for name in _FOR_WORKSPACES)


def credential_parts(uri: str) -> list[str]:
    """What tells the credential for a tracking URI from another one; never to be stored."""
    run_id = run_id_of_job()  # whose token is another one every hour
    names = [name for name in _CREDENTIALS if run_id is None or name not in _OF_A_JOB]
    return [urlsplit(uri).netloc, run_id or "", *(os.environ.get(name, "") for name in names)]


def job_token() -> str | None:
    """The token that Azure ML gave the job of this process, or the newest that has followed."""
    given = next(filter(None, map(os.environ.get, _OF_A_JOB)), None)
    return given if run_id_of_job() else None


def renew_job_token(token: str) -> None:
    """Have what starts from now on use another token in place of the job's."""
    former = job_token()
    for name in _OF_A_JOB:
        if os.environ.get(name) == former:
            export(name, token)


_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_SLOWEST_STORE = 5_000_000
"""Bytes a second that what a server stores files in takes at least."""
_SHIPPER_VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the shipper retries; mlflow would block for minutes
    _TIMEOUT: "30",
    "MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT": "1",  # the same for Databricks' client
}


def await_storing(size: int) -> None:
    """Have MLflow's client in this process wait for a server that stores so many bytes.

    It answers when it has stored all of them, and what it stores them in may be slow.
    """
    seconds = int(_SHIPPER_VARIABLES[_TIMEOUT]) + size // _SLOWEST_STORE
    export(_TIMEOUT, str(seconds))


_TOKENS, _SENT = "AUTOLOG_TOKENS", "stdin"


def are_tokens_sent() -> bool:
    """Whether the process that started this one sends it tokens."""
    return os.environ.get(_TOKENS) == _SENT


def keep_tokens_here() -> None:
    """What this process and its children log waits for tokens of this process."""
    export(_TOKENS, f"process {os.getpid()}")


def shipper_environment(
    uri: str, *, with_credentials: bool = True, sends_tokens: bool = False
) -> dict[str, str]:
    """The environment for a shipper that sends to `uri`, which may hold a password."""
    left_out = {"PYTHONINSPECT", _TOKENS, *(() if with_credentials else _CREDENTIALS)}
    kept = {k: v for k, v in os.environ.items() if k not in left_out}
    tokens = {_TOKENS: _SENT} if sends_tokens else {}
    return kept | _SHIPPER_VARIABLES | {"MLFLOW_TRACKING_URI": uri} | tokens


def job_outputs() -> Path | None:
    """The folder of ours that outlives this job's machine; None outside of Azure ML's jobs."""
    return Path("outputs", "autolog").absolute() if run_id_of_job() else None


def is_ephemeral() -> bool:
    """True where the machine or container goes away with this process."""
    platform = ("KUBERNETES_SERVICE_HOST", "AZUREML_RUN_ID", "SLURM_JOB_ID")
    if any(os.environ.get(name) for name in (*platform, "DATABRICKS_RUNTIME_VERSION")):
        return True
    in_container = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    return in_container and 1 in (os.getpid(), os.getppid())
