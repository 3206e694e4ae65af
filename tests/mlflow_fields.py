"""Runs as a person can see them, field by field, so that two ways of logging can be compared."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlflow.entities import ViewType

if TYPE_CHECKING:
    from mlflow import MlflowClient

OURS = "autolog.run_key"
"""The tag by which we know a run again."""
_RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+-\d+|\w+-[0-9a-f]{6}")
_MEASURED = re.compile(r".*(time|_per_second)|system/.*")
"""Metrics whose values are another at each time."""
_PASSING = re.compile(
    # A server of MLflow 2 decodes what follows a percent sign in the name of an image.
    r"(?<=%timestamp).+(?=\.\w+$)"
    r"|(?<=tfevents)[.\w]+|\bm-[0-9a-f]{32}\b|[+%]\d{13}|[0-9a-f-]{36}",
    re.DOTALL,
)
"""What of a file's name is another at each time."""
_MODEL_ID = re.compile(r"\bm-[0-9a-f]{32}\b")

Fields = dict[str, Any]
Models = dict[str, tuple["str | None", Fields]]
"""By id, the run that logged a model, and what can be seen of the model."""


def runs_of(client: MlflowClient, experiment: str) -> list[Fields]:
    """All runs of an experiment, in an order that does not depend on when they began."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None, experiment
    runs = client.search_runs([found.experiment_id], run_view_type=ViewType.ALL)
    names = {run.info.run_id: _name(run) for run in runs}
    models = _models(client, found.experiment_id)
    return sorted((_fields(client, run, names, models) for run in runs), key=repr)


def _fields(client: MlflowClient, run: Any, names: dict[str, str], models: Models) -> Fields:
    """All that can be seen of a run, but for what differs from call to call."""
    run_id = run.info.run_id
    history = {key: client.get_metric_history(run_id, key) for key in run.data.metrics}
    for points in history.values():
        stamps = [point.timestamp for point in points]
        assert stamps == sorted(stamps)
    end = run.info.end_time
    return {
        "name": _name(run),
        "info": (run.info.status, run.info.user_id, run.info.lifecycle_stage),
        "ends": end >= run.info.start_time if isinstance(end, int) else end,
        "latest": {key: _value(key, value) for key, value in sorted(run.data.metrics.items())},
        "metrics": {key: _points(key, points, models) for key, points in sorted(history.items())},
        "params": dict(sorted(run.data.params.items())),
        "tags": _tags(run, names),
        "datasets": [
            (
                *(given.dataset.name, given.dataset.digest, given.dataset.source_type),
                *(given.dataset.schema, given.dataset.profile),
                tuple(sorted((tag.key, tag.value) for tag in given.tags)),
            )
            for given in run.inputs.dataset_inputs
        ],
        "models": [_name_of_model(m, models) for m in getattr(run.inputs, "model_inputs", ())],
        "outputs": sorted(  # the store gives them in any order
            (str(_name_of_model(m, models)), m.step)
            for m in getattr(getattr(run, "outputs", None), "model_outputs", ())
        ),
        "logged models": sorted(
            (model for run, model in models.values() if run == run_id), key=repr
        ),
        "artifacts": sorted(_files(client, run_id)),
    }


def _name(run: Any) -> str:
    is_random = _RANDOM_NAME.fullmatch(run.info.run_name)
    return "<nobody's choice>" if is_random else str(run.info.run_name)


def _points(key: str, points: list[Any], models: Models) -> list[Any]:
    if key.startswith("system/"):  # as many as there was time for
        assert [point.step for point in points] == list(range(len(points)))
        return ["<measured>"]
    return [(p.step, _value(key, p.value), _name_of_model(p, models)) for p in points]


def _value(key: str, value: float) -> str:
    return "<measured>" if _MEASURED.fullmatch(key) else repr(value)


def _tags(run: Any, names: dict[str, str]) -> dict[str, str]:
    tags = {key: value for key, value in sorted(run.data.tags.items()) if key != OURS}
    tags["mlflow.runName"] = _name(run)
    if "mlflow.parentRunId" in tags:
        tags["mlflow.parentRunId"] = names[tags["mlflow.parentRunId"]]
    if "mlflow.log-model.history" in tags:
        models = json.loads(tags["mlflow.log-model.history"])
        kept = ("artifact_path", "signature")
        tags["mlflow.log-model.history"] = json.dumps(
            [{k: _MODEL_ID.sub("<model>", str(model.get(k))) for k in kept} for model in models]
        )
    return tags


def _files(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    for file in client.list_artifacts(run_id, folder):
        if file.is_dir:
            yield from _files(client, run_id, file.path)
        else:
            yield _PASSING.sub("<>", file.path)


def _models(client: MlflowClient, experiment_id: str) -> Models:
    """The models of an experiment; MLflow 2 has none."""
    if not hasattr(client, "search_logged_models"):
        return {}
    return {
        model.model_id: (
            model.source_run_id,
            {
                "name": model.name,
                "status": str(model.status),
                "type": model.model_type,
                "params": dict(sorted(model.params.items())),
                "metrics": sorted((m.key, m.step, repr(m.value)) for m in model.metrics or ()),
                "tags": sorted(model.tags),
            },
        )
        for model in client.search_logged_models([experiment_id])
    }


def _name_of_model(thing: Any, models: Models) -> str | None:
    """The name of the model that something is linked to."""
    model_id = getattr(thing, "model_id", None)
    return None if model_id is None else str(models[model_id][1]["name"])


# -- what one side has more ------------------------------------------------------------------------


def added(without: list[Fields], with_ours: list[Fields]) -> list[dict[str, list[str]]]:
    """By run, the names that only the second side has; all else must be equal, and be there once.

    Each run is compared with the one of the other side that is most like it.
    """
    assert len(with_ours) == len(without), [run["name"] for run in with_ours]
    left, more = list(with_ours), []
    for run in without:
        differences = [_difference(run, other) for other in left]
        best = min(range(len(left)), key=lambda at: len(differences[at][0]))
        changed, extra = differences[best]
        assert not changed, changed
        more.append(extra)
        del left[best]
    return more


def _are_alike(theirs: Any, both: Any) -> bool:
    """Equal; of a point logged again within a millisecond MLflow's SQL stores keep one.

    So the side with more of them says something only where the other one has each point once.
    """
    if theirs == both or not (isinstance(theirs, list) and isinstance(both, list)):
        return bool(theirs == both)
    distinct = list(dict.fromkeys(theirs))
    is_theirs_to_repeat = len(both) < len(theirs) or len(distinct) < len(theirs)
    return is_theirs_to_repeat and list(dict.fromkeys(both)) == distinct


def _difference(run: Fields, other: Fields) -> tuple[Fields, dict[str, list[str]]]:
    """What is not the same in both; what only the other one has."""
    changed: Fields = {}
    more: dict[str, list[str]] = {}
    for kind, theirs in run.items():
        both = other[kind]
        if isinstance(theirs, dict):
            pairs = {key: (value, both.get(key)) for key, value in theirs.items()}
            differing = {key: pair for key, pair in pairs.items() if not _are_alike(*pair)}
            more[kind] = sorted(both.keys() - theirs.keys())
        elif kind in ("artifacts", "datasets"):
            differing = dict.fromkeys((Counter(theirs) - Counter(both)).elements(), 0)
            extra = (Counter(both) - Counter(theirs)).elements()
            more[kind] = sorted(each if isinstance(each, str) else each[0] for each in extra)
        else:
            differing = {} if both == theirs else {kind: (theirs, both)}
        if differing:
            changed[kind] = differing
    del more["latest"]  # the same names as in "metrics"
    return changed, {kind: names for kind, names in more.items() if names}
