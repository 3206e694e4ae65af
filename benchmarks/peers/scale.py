"""Servers of several workers on PostgreSQL and on SQLite, and what trainings bring into them."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from figures import posting, server
from postgres import Postgres
from support import MlflowServer, eventually

from peers import plan
from peers.contenders import contenders
from peers.fleet import Fleet, family, fleet, processor_seconds
from peers.harness import Bench
from peers.tables import Results, Rows, duration, grouped, table
from peers.work import METRICS

if TYPE_CHECKING:
    from figures import Figure
    from matplotlib.axes import Axes

TITLE = "Servers of several workers, PostgreSQL and SQLite"
_EVERY = 0.2
"""Seconds between two looks into the store."""
_LONGEST = 300
"""Seconds until all must have arrived."""


class Size(NamedTuple):
    """How much is measured."""

    workers: tuple[int, ...]
    fleets: tuple[tuple[int, int], ...]
    """Machines, and trainings on each."""
    values: int
    """That all trainings of a fleet log at once."""
    seconds: int
    """In which each training goes on with a step a second."""
    posting: tuple[tuple[int, int, int], ...]
    """Clients that only post, the requests of all of them, and the values in each."""


FULL = Size(
    workers=(2, 4),
    fleets=((1, 1), (1, 8), (1, 64), (8, 8)),
    values=32_000,
    seconds=10,
    posting=((1, 32, 1000), (8, 32, 1000), (8, 400, 10)),
)
QUICK = Size(
    workers=(1,), fleets=((2, 2),), values=400, seconds=2, posting=((1, 2, 1000), (2, 4, 10))
)


class _Servers(NamedTuple):
    """What takes the values in."""

    mlflow: MlflowServer
    database: Postgres | None

    @property
    def store(self) -> Any:
        """Where values are counted."""
        return self.mlflow.store

    def seconds(self) -> dict[str, float]:
        """Of processors, so far; the looks into the store aside."""
        database = 0.0
        if self.database is not None:
            (looks,) = self.database.ask("SELECT pg_backend_pid()")
            own = [each for each in family(self.database.pid) if each.pid != looks]
            database = processor_seconds(own)
        return {"server": processor_seconds(family(self.mlflow.pid)), "database": database}


class _Account:
    """What trainings and servers do from now on."""

    def __init__(self, servers: _Servers, trainings: Fleet) -> None:
        self._servers, self._trainings = servers, trainings
        self._begin = time.monotonic()
        self._requests = servers.mlflow.request_count("/api/")
        self._values = servers.store.total()
        self._seconds = self._taken()

    def when_stored(self, values: int) -> dict[str, Any]:
        """The row, once so many values more can be read."""
        expected = self._values + values
        eventually(lambda: self._servers.store.total() == expected, _LONGEST, every=_EVERY)
        seconds = time.monotonic() - self._begin
        return {
            "values": values,
            "seconds": seconds,
            "requests": self._servers.mlflow.request_count("/api/") - self._requests,
            **{who: now - self._seconds[who] for who, now in self._taken().items()},
        }

    def _taken(self) -> dict[str, float]:
        helpers, hosts = self._trainings.helpers(), self._trainings.hosts()
        return {
            **self._servers.seconds(),
            "shippers": processor_seconds(helpers),
            "hosts": processor_seconds(hosts),
        }


def measure(bench: Bench) -> Rows:
    """Rows of several cases, by backend and number of workers."""
    size = QUICK if bench.quick else FULL
    rows: Rows = []
    for backend, database in (("PostgreSQL", _postgres), ("SQLite", contextlib.nullcontext)):
        for workers in size.workers:
            with database() as started, server(workers, started) as mlflow:
                print(f"  {backend}, {workers} workers", flush=True)
                for row in _cases(_Servers(mlflow, started), size):
                    rows.append({"backend": backend, "workers": workers, **row})
    return rows


@contextlib.contextmanager
def _postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        database = Postgres(Path(folder))
        try:
            database.start()
            yield database
        finally:
            database.kill()


def _cases(servers: _Servers, size: Size) -> Iterator[dict[str, Any]]:
    for clients, requests, values in size.posting:
        yield {"case": "posting", **_posted(servers, clients, requests, values)}
    for machines, each in size.fleets:
        steps = size.values // METRICS // (machines * each)
        with fleet(
            contenders()["autolog"], servers.mlflow, machines, each, steps + size.seconds
        ) as trainings:
            about = {"machines": machines, "trainings": machines * each}
            yield {"case": "burst", **about, **_burst(servers, trainings, steps)}
            yield {"case": "steady", **about, **_steady(servers, trainings, size.seconds)}
    if servers.database is not None:
        yield {"case": "store", **_store(servers.mlflow, servers.database)}


def _posted(servers: _Servers, clients: int, requests: int, values: int) -> dict[str, Any]:
    """Bodies that were encoded before: what a client takes that does nothing else."""
    before, own = servers.seconds(), requests // clients * values
    posted = posting(servers.mlflow.url, own, METRICS, batch=values, clients=clients)
    latencies = sorted(posted.latencies)
    return {
        "clients": clients,
        "requests": len(latencies),
        "values": len(latencies) * values,
        "seconds": posted.seconds,
        "median": statistics.median(latencies),
        "p99": latencies[int(len(latencies) * 0.99)],
        **{who: now - before[who] for who, now in servers.seconds().items()},
    }


def _burst(servers: _Servers, trainings: Fleet, steps: int) -> dict[str, Any]:
    """So many steps at once: from the first call until all can be read."""
    account = _Account(servers, trainings)
    trainings.go_on(steps)
    return account.when_stored(steps * METRICS * len(trainings.all))


def _steady(servers: _Servers, trainings: Fleet, steps: int) -> dict[str, Any]:
    """A step a second each; `late` is from the last of them until all can be read."""
    account = _Account(servers, trainings)
    for _ in range(steps):
        time.sleep(1)
        trainings.go_on(1)
    begin = time.monotonic()
    row = account.when_stored(steps * METRICS * len(trainings.all))
    return {**row, "late": time.monotonic() - begin}


def _store(mlflow: MlflowServer, database: Postgres) -> dict[str, Any]:
    """What a value takes in PostgreSQL, and what the server holds open there."""
    (values,) = database.ask("SELECT count(*) FROM metrics")
    (size,) = database.ask("SELECT pg_total_relation_size('metrics')")
    (version,) = database.ask("SHOW server_version")
    (most,) = database.ask("SHOW max_connections")
    (connections,) = database.ask(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    memory = sum(process.memory_full_info().pss for process in family(mlflow.pid))
    return {
        "version": version.split()[0],
        "values": values,
        "bytes": size,
        "connections": connections,
        "max_connections": int(most),
        "memory": memory / 1e6,
    }


def figures(results: Results) -> list[Figure]:  # noqa: ARG001 - as each measurement has them
    """The issue asks for no target here."""
    return []


def section(rows: Rows) -> str:
    """A table for each case, and the plan that follows from them."""
    cases = grouped(rows, "case")
    return "\n\n".join(
        [
            "All at once:",
            table(_HEAD, map(_line, cases["burst"])),
            "A step of ten metrics a second in each training:",
            table(
                [*_HEAD, "late"], [[*_line(row), f"{row['late']:.1f} s"] for row in cases["steady"]]
            ),
            "Clients that only post bodies encoded before:",
            table(_POSTING_HEAD, map(_posting_line, cases["posting"])),
            plan.text(rows),
        ]
    )


_HEAD = (
    "backend / workers / machines / trainings / values a second / requests / values a request / "
    "processor: server / database / shippers / trainings"
).split(" / ")
_POSTING_HEAD = (
    "backend / workers / clients / values a request / values a second / requests a second / "
    "a request, median / p99 / processor: server / database"
).split(" / ")


def _line(row: dict[str, Any]) -> list[str]:
    return [
        row["backend"],
        f"{row['workers']}",
        f"{row['machines']}",
        f"{row['trainings']}",
        f"{row['values'] / row['seconds']:,.0f}",
        f"{row['requests']:,}",
        f"{row['values'] / row['requests']:,.0f}",
        *(f"{row[who]:.1f} s" for who in ("server", "database", "shippers", "hosts")),
    ]


def _posting_line(row: dict[str, Any]) -> list[str]:
    return [
        row["backend"],
        f"{row['workers']}",
        f"{row['clients']}",
        f"{row['values'] / row['requests']:,.0f}",
        f"{row['values'] / row['seconds']:,.0f}",
        f"{row['requests'] / row['seconds']:,.0f}",
        duration(row["median"] * 1e9),
        duration(row["p99"] * 1e9),
        *(f"{row[who]:.1f} s" for who in ("server", "database")),
    ]


def plot(rows: Rows, axes: Axes) -> None:
    """Values a second that trainings bring in at once, by the server's workers."""
    bursts = [row for row in rows if row["case"] == "burst"]
    for (backend, machines, trainings), own in grouped(
        bursts, "backend", "machines", "trainings"
    ).items():
        rates = [row["values"] / row["seconds"] for row in own]
        label = f"{backend}, {trainings} trainings on {machines} machine{'s' * (machines > 1)}"
        style = "-" if backend == "PostgreSQL" else "--"
        axes.plot([row["workers"] for row in own], rates, style, marker="o", label=label)
    axes.set_xticks(sorted({row["workers"] for row in bursts}))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("workers of the server")
    axes.set_ylabel("values a second that can be read")
    axes.legend(fontsize="small")
