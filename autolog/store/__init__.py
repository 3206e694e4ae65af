"""MLflow's own calls in this process, by way of the journal.

With ``autolog.enable()`` every client of MLflow's, whoever made it and whenever, writes through the
`StoreProxy` that MLflow's registry then hands out, and a run of ours is MLflow's active run.

=============  ===============================================================
`registry`     how MLflow's clients are given the proxy
`proxy`        the tracking store: what is written to it goes to the journal
`reads`        its base: what is read from it has all that was written
`callers`      which function of MLflow's asks
`runs`         runs that the store's clients open, and those that an id means
`asking`       waiting for a server that may not answer
`checks`       what MLflow would refuse at once; its entities as plain values
`entities`     runs as MLflow's entities, real or as far as they are known here
`fluent`       ``mlflow.active_run()`` and what stands on it
`files`        artifacts of a run that the server does not have yet
`workspaces`   the stores of Azure's plugin, made when they are first asked
`links`        what MLflow prints at the end of a run
`spark`        what MLflow need not do at every call
=============  ===============================================================
"""

from __future__ import annotations

from types import ModuleType

__all__ = ["instrument", "uninstrument"]


def instrument(module: ModuleType) -> None:
    """Have the clients of this process write to the journal; twice is once."""
    from autolog.store import files, fluent, links, registry, spark

    registry.install()
    files.install()
    links.install()
    fluent.install(module)
    spark.install()


def uninstrument() -> None:
    """Put MLflow back as it was; what is in the journal is still sent."""
    from autolog.store import files, fluent, links, registry, spark, workspaces

    registry.remove()
    workspaces.remove()
    files.remove()
    links.remove()
    fluent.remove()
    spark.remove()
