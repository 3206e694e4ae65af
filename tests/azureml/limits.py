"""What the service does not take, and how it says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from starlette.responses import JSONResponse, Response

_SEE = "See https://aka.ms/azure-machine-learning-limits for service limits documentation."


class Refused(Exception):
    """A request that the service refuses as a whole."""

    def __init__(
        self,
        message: str,
        code: str = "ValidationError",
        error_code: str = "INVALID_PARAMETER_VALUE",
    ) -> None:
        self.message = message
        self.code = code
        self.error_code = error_code

    @property
    def reply(self) -> Response:
        """The service's PascalCase form of an error."""
        error = {
            "Code": self.code,
            "Severity": None,
            "Message": self.message,
            "MessageFormat": None,
            "MessageParameters": None,
            "ReferenceCode": None,
            "DetailsUri": None,
            "Target": None,
            "Details": [],
            "InnerError": None,
            "DebugInfo": None,
            "AdditionalInfo": None,
        }
        body = {
            "Error": error,
            "Correlation": {"operation": "0" * 32, "request": "0" * 16},
            "Environment": "eastus",
            "Location": "eastus",
            "Time": "2026-01-01T00:00:00.0000000+00:00",
            "ComponentName": "mlflow",
            "statusCode": 400,
            "error_code": self.error_code,
        }
        return JSONResponse(body, 400)


@dataclass
class Limits:
    """The published and the observed limits; a test may move them."""

    values_of_a_name: int = 250
    """Points of one metric in one batch."""
    metric_name: int = 255
    metric_names: int | None = None
    """Names in a run: 50 in the documentation, yet no refusal is known."""
    params: int = 200
    tags: int = 50
    tag_key: int = 100
    tag_value: int = 1000
    artifacts_of_a_call: int = 100
    history_page: int = 999

    def reset(self) -> None:
        """The published ones again."""
        for field in fields(self):
            setattr(self, field.name, field.default)

    def check_metrics(self, metrics: Collection[Mapping[str, Any]], known: Collection[str]) -> None:
        """Raise `Refused` for metrics of one request to a run that has those `known`."""
        for key, count in Counter(metric["key"] for metric in metrics).items():
            _at_most(self.values_of_a_name, count, "MetricV2Dto.Value/Count")
            _at_most(self.metric_name, len(key), "MetricV2Dto.Name")
        if self.metric_names is not None:
            names = {*known, *(metric["key"] for metric in metrics)}
            _at_most(self.metric_names, len(names), "Metrics")

    def check_params(self, keys: Collection[str], known: Collection[str]) -> None:
        """Raise `Refused` for params of one request to a run that has those `known`."""
        if keys:
            _at_most(self.params, len({*known, *keys}), "Parameters")

    def check_tags(self, tags: Collection[Mapping[str, Any]], known: Collection[str]) -> None:
        """Raise `Refused` for tags of one request to a run that has those `known`."""
        for tag in tags:
            _at_most(self.tag_key, len(tag["key"]), "Tags.Key")
            _at_most(self.tag_value, len(tag.get("value", "")), "Tags.Value")
        if tags:
            _at_most(self.tags, len({*known, *(tag["key"] for tag in tags)}), "Tags")

    def check_history(self, max_results: int) -> None:
        """Raise `Refused` for a page that is too long."""
        if max_results > self.history_page:
            raise Refused(
                f"MaxResults = {max_results} is invalid: "
                f"MaxResults must be less than {self.history_page + 1}.",
                code="UserError",
                error_code="BAD_REQUEST",
            )


def _at_most(limit: int, size: int, field: str) -> None:
    if size > limit:
        raise Refused(
            "A field of the entity is over the size limit. "
            f"FieldName={field}, Limit={limit}, Size={size}. {_SEE}"
        )
