"""The public functions; ``import autolog`` offers them."""

from __future__ import annotations

import contextlib  # noqa: TC003 - the types of the public functions resolve at run time
import os  # noqa: TC003
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from autolog import guard, session
from autolog.handle import RunHandle
from autolog.receipt import Receipt
from autolog.records import Status
from autolog.settings import Origin

_STATUSES = (Status.FINISHED, Status.FAILED, Status.KILLED)


def enable(
    *,
    tracking_uri: str | os.PathLike[str] | None = None,
    workspace: object = None,
    experiment: str | None = None,
    mode: str | None = None,
    strict: bool | None = None,
    silent: bool | None = None,
    exclusive: bool | None = None,
    extra_tags: Mapping[str, str] | None = None,
    log_every_n_steps: int | None = None,
    max_tuning_runs: int | None = None,
    training_metrics: bool | None = None,
    checkpoint: bool | None = None,
    log_models: bool | None = None,
    registered_model_name: str | None = None,
    log_model_signatures: bool | None = None,
    log_input_examples: bool | None = None,
    model_megabytes: int | None = None,
    model_seconds: float | None = None,
    upload_mb_per_second: float | None = None,
    log_datasets: bool | None = None,
    batch_seconds: float | None = None,
    exit_timeout: float | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 - the setting's name everywhere
) -> None:
    """Have every supported framework log its trainings from now on.

    Works before and after the frameworks are imported; calling it again changes the options given.
    No network call is made here, unless `strict`, and nothing is imported that the program has not
    imported.
    An option that is not given comes from its environment variable, ``AUTOLOG_`` and its name in
    capitals, else from its default.

    Args:
        tracking_uri: MLflow tracking URI; also set for mlflow itself.
            Default: what mlflow would use in this process.
        workspace: In its place a workspace of Azure Machine Learning:
            ``autolog.workspace.from_config()``, an ``azureml.core.Workspace``, an
            ``azure.ai.ml.MLClient``, whose credentials serve then, or its tracking URI.
        experiment: Name of the experiment for new runs, made when absent; also set for mlflow.
            Default: what mlflow would use.
        mode: ``"process"`` (default) sends from a process of its own, ``"thread"`` from a daemon
            thread, ``"offline"`` not at all: ``autolog sync`` does it later.
        strict: Raise `ValueError` on values that cannot be logged, and `RuntimeError` from `flush`
            and `run` on anything pending or refused; check here that the target answers.
            Default False: such things are said once and counted.
        silent: Print nothing. Default False.
        exclusive: Leave runs that the user opened alone: a training inside one is not logged.
            Default False: it is logged there.
        extra_tags: Tags for every run that autolog opens. Default none.
        log_every_n_steps: Also log ``batch_loss`` every n-th optimizer step. Default: never.
        max_tuning_runs: How many candidates of a scikit-learn search become child runs, the best
            first; 0 for none. Default 5.
        training_metrics: After a scikit-learn fit, predict the training data and log metrics and
            images of it. Costs as much time as the fit took, or a second where that is more.
            Default False.
        checkpoint: At the end of a Lightning fit, log the best and the last checkpoints that
            ``ModelCheckpoint`` has kept. Each is copied to the local disk first. Default False.
        log_models: Log the trained model, as MLflow's flavor of the framework does: scikit-learn,
            Keras and Lightning by themselves, plain PyTorch with `watch`; of Lightning that with
            the weights of the best checkpoint too. Default True.
            Some models hold rows of their training data.
        registered_model_name: Make a version of each such model in the model registry, under this
            name. Default: none.
        log_model_signatures: With a model, the schemas of what it takes and gives. Default True.
        log_input_examples: With a model, the first rows of its training data, five at most. Default
            False.
        model_megabytes: A model that is larger is not logged, which is said once. Default 256.
        model_seconds: One that takes longer to serialise is not logged either. Default 2 s.
        upload_mb_per_second: Most of the network that the upload of files may take, in 10⁶ bytes a
            second. Counts for the process that sends, which trainings of one target share: that of
            the first of them. Default: no limit.
        log_datasets: Log what a training is given as MLflow's datasets: name, digest, schema and
            shape, as far as they are known without work. Default True.
        batch_seconds: Longest time a value waits before it is sent. Default 1 s.
        exit_timeout: Longest wait at the end of the process for a remote server. Default 10 s.
        dir: Folder for the journals, on a local disk. Default: the user's state folder.

    Raises:
        SettingError: An option has a value that cannot be used.
        RuntimeError: With ``strict``, the target or the credential for it cannot be used.
    """
    current = session.get()
    given = {
        "mode": mode,
        "strict": strict,
        "silent": silent,
        "exclusive": exclusive,
        "extra_tags": extra_tags,
        "log_every_n_steps": log_every_n_steps,
        "max_tuning_runs": max_tuning_runs,
        "training_metrics": training_metrics,
        "checkpoint": checkpoint,
        "log_models": log_models,
        "registered_model_name": registered_model_name,
        "log_model_signatures": log_model_signatures,
        "log_input_examples": log_input_examples,
        "model_megabytes": model_megabytes,
        "model_seconds": model_seconds,
        "upload_mb_per_second": upload_mb_per_second,
        "log_datasets": log_datasets,
        "batch_seconds": batch_seconds,
        "exit_timeout": exit_timeout,
        "dir": dir,
    }
    current.configure(given)
    current.aim.take(tracking_uri, workspace, experiment)
    current.enable()


def disable() -> None:
    """Put back everything that `enable` replaced; runs that are open stay open.

    The explicit forms and functions go on working.
    """
    session.get().disable()


def pause() -> contextlib.AbstractContextManager[None]:
    """Context manager: what trains inside is not logged; explicit calls are."""
    return session.get().recorder.nesting.pause()


def epochs(count: int) -> Iterator[int]:
    """``range(count)`` for a PyTorch loop without a ``DataLoader``: each turn is an epoch.

    ``for epoch in autolog.epochs(10):`` logs ``epoch_loss`` of each turn, the mean over its steps,
    and ``epochs`` as a param. Batches of a ``DataLoader`` inside count by their samples, and all
    that trains in one turn is one epoch. Without `enable` or `watch` it is ``range(count)``.

    Args:
        count: Number of epochs.
    """
    if "torch" in sys.modules:
        with guard.shield("epochs"):
            from autolog.callbacks.torch import hooks

            return hooks.epochs(count)
    return iter(range(count))


def watch(model: Any, *optimizers: Any) -> None:
    """Log what the optimizers train as one run of `model`, with or without `enable`.

    For PyTorch, before the training. The run is named after the model's class, and has
    ``model_parameters`` and ``model_trainable_parameters`` as params. Until `disable`.

    Args:
        model: A ``torch.nn.Module``; what DDP or ``torch.compile`` wrap round it is looked through.
        optimizers: Those that train it; one of them made later needs a call of its own.
    """
    current = session.get()
    if current.settings.disabled:
        return
    with guard.shield("watch"):
        from autolog.callbacks import torch
        from autolog.callbacks.torch import hooks

        current.switchboard.keep("torch", torch)
        hooks.watch(model, optimizers)


def run(
    name: str | None = None,
    *,
    experiment: str | None = None,
    tags: Mapping[str, object] | None = None,
) -> contextlib.AbstractContextManager[RunHandle]:
    """Context manager: a run for everything logged inside; nested, a child run.

    It ends FINISHED, FAILED when an exception leaves it, KILLED on Ctrl-C; the exception passes.

    Args:
        name: Run name. Default: ``MLFLOW_RUN_NAME``, else ``run-<short id>``.
        experiment: Experiment for this run. Default: that of `enable`, or mlflow's.
        tags: Tags of the run.

    Raises:
        RuntimeError: With ``strict``, at the end, when values are still unsent after 60 s or were
            refused.
    """
    return session.get().run(name, experiment, tags)


def end_run(status: str = Status.FINISHED) -> None:
    """End the current run; does nothing when none is open.

    Args:
        status: ``"FINISHED"`` (default), ``"FAILED"`` or ``"KILLED"``.

    Raises:
        ValueError: The status is none of these.
    """
    if status not in _STATUSES:
        raise ValueError(f"status={status!r}: use one of {', '.join(_STATUSES)}")
    recorder = session.get().recorder
    run = recorder.open_run()
    if run is not None:
        recorder.end_run(run, status)


def last_run() -> RunHandle | None:
    """A handle on the run that this process opened last; None before the first."""
    return session.get().last_run()


def log_metrics(metrics: Mapping[str, Any], step: int | None = None) -> None:
    """Log values of one step to the current run, in microseconds and without an I/O call.

    What this returned from survives the process. The current run is the innermost of the context,
    else the only open one, else a new one.

    Args:
        metrics: Metric names and numbers: anything with ``__float__``; NaN and infinities count.
        step: A whole number of 64 bits. Default: the next integer of each name.

    Raises:
        ValueError: With ``strict``, a value cannot be logged. Without it the value is left out,
            said once a name and counted. The others are logged either way.
    """
    recorder = session.get().recorder
    try:
        run = recorder.nesting.innermost()
        if run is not None:
            run.log_metrics(metrics, step)
        else:
            recorder.on_current_run(lambda run: run.log_metrics(metrics, step))
    except Exception as error:  # a shield, without the cost of one on this path
        if guard.strict:
            raise
        guard.report("log_metrics", error)


def log_metric(key: str, value: Any, step: int | None = None) -> None:
    """Log one value; as `log_metrics`."""
    with guard.shield("log_metric"):
        log_metrics({key: value}, step)


def log_params(params: Mapping[str, object]) -> None:
    """Log params of the current run, as ``str(value)``.

    The first value of a param stands; a later one goes to ``params.json`` in the run, which is
    said once. A value longer than the server takes is shortened there and whole in ``params.json``,
    up to a million characters.

    Raises:
        ValueError: With ``strict``, for a name that cannot be used or a param that changes. The
            others are logged before that.
    """
    with guard.shield("log_params"):
        session.get().recorder.on_current_run(lambda run: run.log_params(params))


def set_tags(tags: Mapping[str, object]) -> None:
    """Set tags of the current run, as ``str(value)``; the last value of a tag stands.

    Raises:
        ValueError: With ``strict``, for a name that cannot be used. The others are set before that.
    """
    with guard.shield("set_tags"):
        session.get().recorder.on_current_run(lambda run: run.set_tags(tags))


def log_artifact(local_path: str | os.PathLike[str], artifact_path: str | None = None) -> None:
    """Log a file, or a folder with what it holds, as it is at this moment.

    The copy is made here, the upload happens in the background, behind the metrics. Where the files
    that wait for it take ``journal_limit`` bytes, it is not logged: said once, and counted.

    Args:
        local_path: The file or folder.
        artifact_path: Folder in the run's artifacts. Default: their root.

    Raises:
        ValueError: With ``strict``, when there is no such file or the folder's name cannot be used.
            Without it that is said once and counted, as is a copy that fails.
    """
    with guard.shield("log_artifact"):
        session.get().recorder.on_current_run(
            lambda run: run.files.log_artifact(local_path, artifact_path)
        )


def log_artifacts(local_dir: str | os.PathLike[str], artifact_path: str | None = None) -> None:
    """Log what a folder holds; as `log_artifact`."""
    log_artifact(local_dir, artifact_path)


def register_model(name: str) -> None:
    """Make a version of the current run's model in the model registry, or else of the last run's.

    It is made in the background, once the model is stored: as a version of a logged model where the
    server has those, and of the run's ``model`` folder elsewhere, a workspace of Azure ML for one.

    What the server refuses is said and counted; `flush` waits for it.

    Args:
        name: Name of the registered model, made when absent.

    Raises:
        ValueError: With ``strict``, when the name cannot be used or no run was opened yet.
    """
    with guard.shield("register_model"):
        recorder = session.get().recorder
        run = recorder.open_run() or recorder.last_run
        if run is not None:
            run.files.register_model(name)
        elif not recorder.is_mute:
            problem = f"register_model({name!r}): no run yet; train something first"
            if guard.strict:
                raise ValueError(problem)
            guard.say(problem)


def flush(timeout: float = 60.0) -> Receipt:
    """Send everything logged so far, files included, and wait for it.

    Args:
        timeout: Longest wait in seconds.

    Returns:
        The account of this process; ``receipt.complete`` says whether the server has everything.

    Raises:
        RuntimeError: With ``strict``, when something is pending, refused or dropped.
    """
    return session.get().flush(timeout)


def shutdown(timeout: float = 60.0) -> Receipt:
    """End the open runs, `disable`, and `flush`; returns and raises as `flush`."""
    return session.get().shutdown(timeout)


def status() -> dict[str, Any]:
    """What goes on now, without waiting for anybody; not for programs to store.

    Returns:
        ``enabled``; ``instrumented`` modules; names of ``open_runs``; the ``receipt`` so far;
        ``internal_errors``, counted by place; folders of ``journals``; and by group ``shippers``:
        pid, whether the server is ``down``, the ``problem`` with it, values ``stored``; and
        ``uploads``: ``files`` and ``bytes`` that wait, and the file that is ``sending``, with its
        ``path`` in the run, its ``size`` and how many bytes are ``sent``.
    """
    return session.get().status()


def config() -> dict[str, Origin]:
    """Each setting, tracking URI and experiment included, with its value and where that came from.

    Returns:
        By name a ``value``, passwords left out, and its ``origin``: ``"argument"``, a variable's
        or function's name, or ``"default"``, with the reason where a variable cannot be used.
    """
    return session.get().config()
