"""Servers that are away, slow, sick or wrong: the training is the same, and everything arrives."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import autolog
from faults import FaultyProxy, Reply, _pass
from journals import small_disk
from support import MlflowServer, eventually, free_port, run_script, start_script
from trainings import (
    Trained,
    accounts,
    arrives,
    dead_letters,
    everything_of_a_training,
    fresh_name,
    group_of,
    run_named,
    ship,
    shippers,
    stored,
    train,
)

from autolog.journal.owner import is_locked
from autolog.journal.root import SHIPPER_LOCK

EXIT_SECONDS = 2.0
NOISE_SECONDS = 2.0
QUICK_EXIT = {"AUTOLOG_EXIT_TIMEOUT": str(EXIT_SECONDS)}

FAULTS: dict[str, Callable[[FaultyProxy], None]] = {
    "refused": FaultyProxy.refuse,
    "black hole": FaultyProxy.black_hole,
    "500": lambda proxy: proxy.status(500),
    "503": lambda proxy: proxy.status(503),
    "429": lambda proxy: proxy.status(429),
    "429 with Retry-After": lambda proxy: proxy.status(429, retry_after=3),
    "401": lambda proxy: proxy.status(401),
    "HTML": FaultyProxy.html,
    "reply lost": FaultyProxy.lose_reply,
    "reply cut": FaultyProxy.cut,
}


@pytest.fixture(scope="module")
def undisturbed(mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The same training with the server up."""
    home = tmp_path_factory.mktemp("undisturbed")
    return train(mlflow_server.url, home, env={"AUTOLOG_DIR": str(home / "home")})


def assert_as_undisturbed(trained: Trained, undisturbed: Trained) -> None:
    """The same result, in the same time but for noise and the stated wait at exit."""
    assert trained.result == undisturbed.result
    assert trained.seconds <= 1.5 * undisturbed.seconds + NOISE_SECONDS / 2
    assert trained.whole <= undisturbed.whole + EXIT_SECONDS + NOISE_SECONDS


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_costs_neither_time_nor_data(
    fault: str,
    faulty: FaultyProxy,
    mlflow_server: MlflowServer,
    undisturbed: Trained,
    autolog_home: Path,
) -> None:
    """A training through an outage is the same, and each value is stored once when it is over."""
    FAULTS[fault](faulty)
    trained = train(faulty.url, Path.cwd(), env=QUICK_EXIT)
    assert_as_undisturbed(trained, undisturbed)
    assert faulty.count() > 0 or fault == "refused"
    faulty.pass_on()
    arrives(mlflow_server, trained.name, everything_of_a_training())
    eventually(lambda: run_named(mlflow_server, trained.name).info.status == "FINISHED")
    assert dead_letters(autolog_home) == []


def test_a_server_killed_in_the_middle_gets_everything_later(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """A server killed while values stream in has each of them once after its restart."""
    name = fresh_name()
    source = f"""
        import time, autolog
        from pathlib import Path
        autolog.enable(batch_seconds=0.1)
        with autolog.run("{name}"):
            step = after = 0
            while after < 100:
                autolog.log_metrics({{"loss": step / 8}}, step=step)
                after += Path("killed").exists()
                step += 1
                time.sleep(0.01)
        print(step)
    """
    process = start_script(source, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": mlflow_server.url})
    eventually(lambda: stored(mlflow_server, name), 30)
    mlflow_server.kill()
    try:
        (tmp_path / "killed").touch()
        assert process.wait(30) == 0
        assert process.stdout is not None
        steps = int(process.stdout.read())
    finally:
        mlflow_server.start()
    arrives(mlflow_server, name, {("loss", step, step / 8) for step in range(steps)}, 40)


def test_a_server_error_that_lasts_refuses_nothing(
    faulty: FaultyProxy, mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """However often a server answers 500 to everything, no value is taken for refused."""
    name = fresh_name()
    source = f"""
        import autolog
        autolog.enable(batch_seconds=0.05)
        with autolog.run("{name}") as run:
            autolog.flush(20)
            print(run.run_id, flush=True)
            input_pipe = open("go")
            input_pipe.read()
            autolog.log_metrics({{"loss": 1.0}}, step=0)
    """
    go = tmp_path / "go"
    subprocess.run(["mkfifo", str(go)], check=True)
    process = start_script(
        source, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": faulty.url, **QUICK_EXIT}
    )
    assert process.stdout is not None
    assert process.stdout.readline() != "None\n"
    faulty.status(500)
    go.write_text("")
    eventually(lambda: faulty.count("log-batch") >= 8, 40)
    assert dead_letters(autolog_home) == []
    faulty.pass_on()
    arrives(mlflow_server, name, {("loss", 0, 1.0)})
    assert [account.rejected for account in accounts(autolog_home)] == [{}]


def test_a_shipper_started_anew_sends_what_the_first_could_not(
    faulty: FaultyProxy, mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """With training and shipper gone, `ship` in a fresh process brings everything."""
    faulty.refuse()
    trained = train(faulty.url, tmp_path, env=QUICK_EXIT)
    for process in shippers(autolog_home):
        process.kill()
        process.wait(10)
    faulty.pass_on()
    ship(group_of(autolog_home), faulty.url)
    assert stored(mlflow_server, trained.name) == sorted(everything_of_a_training())


def test_a_full_disk_stops_no_shipper(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """What a full disk holds is sent, though nothing about that can be written down there."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        env = {"AUTOLOG_MODE": "offline", "AUTOLOG_DIR": str(disk / "home")}
        trained = train(mlflow_server.url, tmp_path, env=env)
        with contextlib.suppress(OSError):
            (disk / "filler").write_bytes(bytes(1 << 20))
        ship(group_of(disk / "home"), mlflow_server.url)
        assert stored(mlflow_server, trained.name) == sorted(everything_of_a_training())


def test_sigterm_is_seen_on_a_full_disk(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """What tells a training that was stopped from one that died has its room beforehand."""
    name = fresh_name()
    source = f"""
        import contextlib, os, signal
        from pathlib import Path
        import autolog
        autolog.enable(silent=True)
        with autolog.run({name!r}):
            autolog.log_metrics({{"loss": 0.5}}, step=0)
            with contextlib.suppress(OSError):
                Path("disk/filler").write_bytes(bytes(1 << 20))
            os.kill(os.getpid(), signal.SIGTERM)
    """
    with small_disk(tmp_path / "disk", "1m") as disk:
        env = {
            "MLFLOW_TRACKING_URI": mlflow_server.url,
            "AUTOLOG_MODE": "offline",
            "AUTOLOG_DIR": str(disk / "home"),
        }
        assert run_script(source, cwd=tmp_path, env=env).returncode == -signal.SIGTERM
        (disk / "filler").unlink()
        ship(group_of(disk / "home"), mlflow_server.url)
    assert run_named(mlflow_server, name).info.status == "KILLED"


def test_a_shipper_leaves_when_more_waits_than_it_holds(tmp_path: Path, autolog_home: Path) -> None:
    """It need not come to the end of what a dead process wrote to see that this is dead."""
    source = """
        import autolog
        autolog.enable(silent=True)
        with autolog.run("large"):
            for step in range(400):
                autolog.log_metrics({f"m{i}": 0.5 for i in range(100)}, step=step)
    """
    env = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}", "AUTOLOG_LINGER": "1"}
    run_script(source, cwd=tmp_path, env=env)
    (lock,) = autolog_home.glob(f"*/{SHIPPER_LOCK}")
    eventually(lambda: not is_locked(lock), 20)


# -- one sick run, one bad record ------------------------------------------------------------------


def test_an_unknown_run_blocks_no_other(
    mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """A run id that the server does not know is set aside and counted; what comes after arrives."""
    name = fresh_name()
    source = f"""
        import autolog, os
        autolog.enable()
        autolog.log_metrics({{"lost": 1.0}}, step=0)
        del os.environ["MLFLOW_RUN_ID"]
        with autolog.run("{name}"):
            autolog.log_metrics({{"loss": 2.0}}, step=0)
        receipt = autolog.flush(20)
        print(receipt.acknowledged, receipt.pending, sum(receipt.rejected.values()))
    """
    env = {"MLFLOW_TRACKING_URI": mlflow_server.url, "MLFLOW_RUN_ID": "f" * 32}
    done = run_script(source, cwd=tmp_path, env=env)
    assert stored(mlflow_server, name) == [("loss", 0, 2.0)]
    acknowledged, pending, rejected = map(int, done.stdout.split())
    assert (pending, rejected) == (0, 1)
    assert acknowledged >= 1
    assert len(list(autolog_home.glob("*/*/held/*/meta.json"))) == 1


DELETIONS = {
    "run": "client.delete_run(run.run_id)",
    "experiment": "client.delete_experiment(client.get_experiment_by_name('{name}').experiment_id)",
}


@pytest.mark.parametrize("deleted", DELETIONS)
def test_a_deleted_run_blocks_no_other(
    deleted: str, mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """A run deleted on the server, or with its experiment, is set aside; the others arrive."""
    name = fresh_name()
    deletion = DELETIONS[deleted].format(name=name)
    source = f"""
        import autolog
        from mlflow import MlflowClient
        client = MlflowClient("{mlflow_server.url}")
        autolog.enable(tracking_uri="{mlflow_server.url}")
        open("note.txt", "w").write("note")
        with autolog.run("sick", experiment="{name}") as run:
            autolog.log_metrics({{"kept": 1.0}}, step=0)
            autolog.flush(20)
            {deletion}
            autolog.log_metrics({{"late": 1.0}}, step=1)
            autolog.log_params({{"p": 1}})
            autolog.log_artifact("note.txt")
            with autolog.run("{name}", experiment="{name}-other"):
                autolog.log_metrics({{"loss": 2.0}}, step=0)
        receipt = autolog.flush(20)
        print(receipt.pending, sum(receipt.rejected.values()), receipt.rejected)
    """
    done = run_script(source, cwd=tmp_path)
    assert stored(mlflow_server, name) == [("loss", 0, 2.0)]
    assert done.stdout.startswith("0 3 "), done.stdout + done.stderr
    assert len(list(autolog_home.glob("*/*/held/*/meta.json"))) == 1


@pytest.mark.long
def test_a_forbidden_run_blocks_no_other_training(
    faulty: FaultyProxy, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """While a server denies one training its run, another one's arrives; later both are there."""
    forbidden, allowed = fresh_name(), fresh_name()

    def deny(handler: Any, request: Any) -> None:
        reply = Reply(403, b'{"error_code": "PERMISSION_DENIED", "message": "not yours"}')
        is_denied = "runs/create" in request.path and forbidden.encode() in request.body
        handler.send(reply) if is_denied else _pass(handler, request)

    faulty._switch(deny)
    train(faulty.url, tmp_path, name=forbidden, env=QUICK_EXIT)
    train(faulty.url, tmp_path, name=allowed, env=QUICK_EXIT)
    arrives(mlflow_server, allowed, everything_of_a_training(), 90)
    faulty.pass_on()
    arrives(mlflow_server, forbidden, everything_of_a_training(), 60)


def test_an_end_that_is_refused_is_set_aside(
    faulty: FaultyProxy, mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """Where a server stores all but the ends of runs, those are sent again by hand."""

    def deny(handler: Any, request: Any) -> None:
        reply = Reply(404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such run"}')
        handler.send(reply) if "runs/update" in request.path else _pass(handler, request)

    names = [fresh_name(), fresh_name()]
    source = f"""
        import autolog
        for name in {names}:
            with autolog.run(name):
                autolog.log_metrics({{"loss": 1.0}}, step=0)
        autolog.flush(20)
    """
    faulty._switch(deny)
    run_script(source, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": faulty.url})
    eventually(lambda: not shippers(autolog_home), 20)
    assert {run_named(mlflow_server, name).info.status for name in names} == {"RUNNING"}
    faulty.pass_on()
    autolog("sync", env={"MLFLOW_TRACKING_URI": faulty.url}, code=0)
    assert {run_named(mlflow_server, name).info.status for name in names} == {"FINISHED"}
    (account,) = accounts(autolog_home)
    assert (account.acknowledged, account.rejected) == (2, {})


def test_a_param_changed_on_the_server_costs_no_other(
    mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """A param that has another value there becomes a dead letter; all beside it is stored."""
    name = fresh_name()
    source = f"""
        import autolog
        import requests
        autolog.enable(tracking_uri="{mlflow_server.url}", batch_seconds=0.1)
        with autolog.run("{name}") as run:
            autolog.log_metrics({{"loss": 0.0}}, step=0)
            autolog.flush(20)
            requests.post(
                "{mlflow_server.url}/api/2.0/mlflow/runs/log-parameter",
                json={{"run_id": run.run_id, "key": "p50", "value": "other"}},
            ).raise_for_status()
            autolog.log_params({{f"p{{i}}": i for i in range(100)}})
            autolog.log_metrics({{"loss": 1.0}}, step=1)
            receipt = autolog.flush(20)
        print(receipt.pending, sum(receipt.rejected.values()))
    """
    done = run_script(source, cwd=tmp_path)
    assert done.stdout == "0 1\n"
    run = run_named(mlflow_server, name)
    expected = {f"p{i}": str(i) for i in range(100)} | {"p50": "other"}
    assert run.data.params == expected
    assert stored(mlflow_server, name) == [("loss", 0, 0.0), ("loss", 1, 1.0)]
    (letter,) = dead_letters(autolog_home)
    assert letter["params"] == {"p50": "50"}
    assert "p50" in letter["reason"]


@pytest.mark.parametrize("status", [400, 500])
def test_what_a_server_will_not_have_costs_nothing_beside_it(
    status: int, faulty: FaultyProxy, mlflow_server: MlflowServer, autolog_home: Path
) -> None:
    """A point that a server refuses, or breaks on each time, becomes a dead letter, alone."""

    def choke(handler: Any, request: Any) -> None:
        reply = Reply(status, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "no poison"}')
        handler.send(reply) if b"poison" in request.body else _pass(handler, request)

    faulty._switch(choke)
    name = fresh_name()
    source = f"""
        import autolog
        autolog.enable(tracking_uri="{faulty.url}")
        with autolog.run("{name}"):
            for step in range(500):
                autolog.log_metrics({{"loss": step / 2}}, step=step)
            autolog.log_metrics({{"poison": 1.0}}, step=0)
            for step in range(500, 1000):
                autolog.log_metrics({{"loss": step / 2}}, step=step)
        print(autolog.flush(30).pending)
    """
    done = run_script(source, cwd=Path.cwd())
    assert done.stdout == "0\n"
    assert stored(mlflow_server, name) == [("loss", step, step / 2) for step in range(1000)]
    (letter,) = dead_letters(autolog_home)
    assert [metric["key"] for metric in letter["metrics"]] == ["poison"]
    assert letter["reason"] == "no poison"


def test_a_journal_that_cannot_be_dealt_with_costs_no_other(
    mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """Where a refused run cannot be set aside, the journals beside that one are shipped."""
    source = "import autolog; autolog.log_metrics({'lost': 1.0}, step=0)"
    unknown = {"AUTOLOG_MODE": "offline", "MLFLOW_RUN_ID": "f" * 32}
    run_script(source, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": mlflow_server.url, **unknown})
    (journal,) = (entry for entry in group_of(autolog_home).iterdir() if entry.is_dir())
    (journal / "held").write_text("in the place of a folder")
    trained = train(mlflow_server.url, tmp_path)
    arrives(mlflow_server, trained.name, everything_of_a_training())
    assert len(shippers(autolog_home)) == 1
