"""Which of MLflow's sqlite schemas are known: the tables with runs, as 2.18 to 3.18 make them.

A revision is added once `rows` has been compared with what MLflow itself writes there.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

_REVISIONS = frozenset(
    """
    0584bdc529eb 400f98739977 6953534de441 bda7b8c39065 cbc13b556ace 770bee3ae1dd a1b2c3d4e5f6
    de4033877273 1a0cddfcaa16 534353b11cbc 71994744cf8e 3da73c924c2f bf29a5ff90ea 1bd49d398cd23
    b7c8d9e0f1a2 5d2d30f0abce c9d4e5f6a7b8 2c33131f4dae d3e4f5a6b7c8 d0e1f2a3b4c5 c8d9e0f1a2b3
    1b5f0d9ad7c1 e1f2a3b4c5d6 76601a5f987d c3d6457b6d8a a5b4c3d2e1f0 ae8bbe7743c9 7d34483879f0
    da6fb0208061 89d3d66ed43f b7e4c1a90f23 a8b9c0d1e2f3 c1d2e3f4a5b6 c3d9e7f1a2b4 6f8d9c3b2a1e
    1971f2d9a75b 17e22815139b b7e2c1a4d9f3 75868b020152 dc11669786a5 e7d1f4b2a9c6 8b6ad64cb8f5
    f4a9b2c7d1e6
    """.split()
)
"""The steps of MLflow's migrations, from the last of 2.18 to the last of 3.18."""

_UPSERT = (3, 24)
"""The first sqlite with ``ON CONFLICT``."""


class ForMLflow(Exception):
    """Not for us to decide: MLflow's own store is to be asked."""


class _Table(NamedTuple):
    key: str
    """The columns of its primary key, in their order."""
    others: str
    later: str = ""
    """Columns that a later revision has added, with a default."""

    def is_made_of(self, key: list[str], others: set[str]) -> bool:
        """Whether a table with these columns is this one."""
        expected, later = set(self.others.split()), set(self.later.split())
        return key == self.key.split() and expected <= others <= expected | later


_TABLES = {
    "experiments": _Table(
        "experiment_id",
        "name artifact_location lifecycle_stage creation_time last_update_time",
        "workspace",
    ),
    "runs": _Table(
        "run_uuid",
        "name source_type source_name entry_point_name user_id status start_time end_time "
        "source_version lifecycle_stage artifact_uri experiment_id deleted_time",
    ),
    "tags": _Table("key run_uuid", "value"),
    "params": _Table("key run_uuid", "value"),
    "metrics": _Table("key timestamp step run_uuid value is_nan", ""),
    "latest_metrics": _Table("key run_uuid", "value timestamp step is_nan"),
    "datasets": _Table(
        "experiment_id name digest",
        "dataset_uuid dataset_source_type dataset_source dataset_schema dataset_profile",
    ),
    "inputs": _Table("source_type source_id destination_type destination_id", "input_uuid", "step"),
    "input_tags": _Table("input_uuid name", "value"),
    "logged_model_metrics": _Table(
        "model_id metric_name metric_timestamp_ms metric_step run_id",
        "metric_value experiment_id dataset_uuid dataset_name dataset_digest",
    ),
}
_LATER = {"logged_model_metrics"}
_NAMES = ",".join(f"'{name}'" for name in _TABLES)
_COLUMNS = f"""
    SELECT tables.name, columns.name, columns.pk
    FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns
    WHERE tables.type = 'table' AND tables.name IN ({_NAMES})
    ORDER BY columns.pk
"""  # noqa: S608 - names of our own
_TRIGGER = f"SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ({_NAMES})"  # noqa: S608
_ELSEWHERE = "SELECT 1 FROM experiments WHERE workspace != 'default'"


def is_there(database: sqlite3.Connection) -> bool:
    """Whether MLflow has ever finished its tables here."""
    made = "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
    return database.execute(made).fetchone() is not None and bool(_revisions(database))


def require_known(database: sqlite3.Connection) -> None:
    """Raise `ForMLflow` unless the tables are those that `rows` writes to, of one workspace.

    To be asked within each transaction: MLflow may alter its tables at any time.
    """
    if not (_is_known_revision(database) and _are_known_tables(database)):
        raise ForMLflow


def knows_models(database: sqlite3.Connection) -> bool:
    """Whether there are logged models, which MLflow has since 3.0."""
    made = "SELECT 1 FROM sqlite_master WHERE name = 'logged_model_metrics'"
    return database.execute(made).fetchone() is not None


def _is_known_revision(database: sqlite3.Connection) -> bool:
    can_upsert = sqlite3.sqlite_version_info >= _UPSERT
    return can_upsert and is_there(database) and _revisions(database) <= _REVISIONS


def _are_known_tables(database: sqlite3.Connection) -> bool:
    found: dict[str, tuple[list[str], set[str]]] = {}
    for table, column, place in database.execute(_COLUMNS):
        key, others = found.setdefault(table, ([], set()))
        if place:
            key.append(column)
        else:
            others.add(column)
    if not _TABLES.keys() - _LATER <= found.keys() or database.execute(_TRIGGER).fetchone():
        return False
    has_workspaces = "workspace" in found["experiments"][1]
    if has_workspaces and database.execute(_ELSEWHERE).fetchone():
        return False
    return all(_TABLES[table].is_made_of(*columns) for table, columns in found.items())


def _revisions(database: sqlite3.Connection) -> set[str]:
    return {revision for (revision,) in database.execute("SELECT version_num FROM alembic_version")}
