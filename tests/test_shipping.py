"""The shipper itself: one a group and small, the metrics first and the files behind them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from faults import FaultyProxy, Reply, _hold, _pass
from support import MlflowServer, eventually, run_script, start_script
from trainings import (
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

MEGABYTE = 1 << 20
LARGEST_SHIPPER = 40 * MEGABYTE
TRAININGS = 16
LONGEST_PARAM = 1 << 20


HELD_OPEN = """
    import autolog
    autolog.enable(batch_seconds=0.2)
    autolog.log_metrics({"loss": 1.0}, step=0)
    print("ready", flush=True)
    open("../go").read()
    for step in range(1, 200):
        autolog.log_metrics({"loss": 1.0}, step=step)
"""


@pytest.mark.parametrize("place", ["server", "file"])
def test_many_trainings_share_one_small_shipper(
    place: str, mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """Sixteen trainings at once have one shipper between them, which stays below 40 MB.

    So it is where they log to the file that a server is at.
    """
    os.mkfifo(tmp_path / "go")
    uri = mlflow_server.url if place == "server" else mlflow_server.store.uri
    env = {"MLFLOW_TRACKING_URI": uri}
    names = [fresh_name() for _ in range(TRAININGS)]
    running = []
    for name in names:
        (tmp_path / name).mkdir()
        environment = {**env, "MLFLOW_RUN_NAME": name}
        running.append(start_script(HELD_OPEN, cwd=tmp_path / name, env=environment))
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    eventually(lambda: len(shippers(autolog_home)) == 1, 20)
    (shipper,) = shippers(autolog_home)
    for name in names:
        eventually(lambda n=name: stored(mlflow_server, n) == [("loss", 0, 1.0)], 20)
    assert len(list(group_of(autolog_home).glob("*/meta.json"))) == TRAININGS
    resident = shipper.memory_info().rss
    (tmp_path / "go").write_text("")
    for process in running:
        assert process.wait(30) == 0
    for name in names:
        arrives(mlflow_server, name, {("loss", step, 1.0) for step in range(200)})
    print(f"the shipper of {TRAININGS} trainings takes {resident / MEGABYTE:.1f} MB")  # noqa: T201
    assert resident <= LARGEST_SHIPPER


def test_a_second_shipper_leaves_at_once(
    faulty: FaultyProxy, mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """While a shipper works on a group another one does nothing and returns."""
    faulty.refuse()
    trained = train(faulty.url, tmp_path)
    (first,) = shippers(autolog_home)
    before = accounts(autolog_home)
    ship(group_of(autolog_home), mlflow_server.url, timeout=10)
    assert accounts(autolog_home) == before
    assert [shipper.pid for shipper in shippers(autolog_home)] == [first.pid]
    faulty.pass_on()
    arrives(mlflow_server, trained.name, everything_of_a_training())


def test_a_shipper_leaves_when_all_is_sent(
    mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """After the last training the shipper goes by itself, and the disk is free again."""
    trained = train(mlflow_server.url, tmp_path)
    arrives(mlflow_server, trained.name, everything_of_a_training())
    eventually(lambda: shippers(autolog_home) == [], 20)
    assert list(autolog_home.rglob("*.seg")) == []
    assert [account.acknowledged >= 1200 for account in accounts(autolog_home)] == [True]


# -- files -----------------------------------------------------------------------------------------


def artifacts(server: MlflowServer, name: str, into: Path) -> dict[str, bytes]:
    """Every file of a run's artifacts with its content."""
    into.mkdir(exist_ok=True)
    run_id = run_named(server, name).info.run_id
    place = Path(server.client().download_artifacts(run_id, "", str(into)))
    return {
        file.relative_to(place).as_posix(): file.read_bytes()
        for file in place.rglob("*")
        if file.is_file()
    }


LOGGING_FILES = """
    from pathlib import Path
    import autolog
    autolog.enable()
    Path("note.txt").write_text("a note")
    Path("folder/deeper").mkdir(parents=True)
    Path("folder/one.bin").write_bytes(bytes(range(256)))
    Path("folder/deeper/two.txt").write_text("two")
    with autolog.run("{name}"):
        autolog.log_artifact("note.txt")
        autolog.log_artifact("note.txt", "notes/of today")
        autolog.log_artifacts("folder", "whole")
        Path("note.txt").write_text("changed later")
        for step in range(100):
            autolog.log_metrics({{"loss": step / 4}}, step=step)
"""
LOSSES = {("loss", step, step / 4) for step in range(100)}
FILES = {
    "note.txt": b"a note",
    "notes/of today/note.txt": b"a note",
    "whole/one.bin": bytes(range(256)),
    "whole/deeper/two.txt": b"two",
}


def test_files_arrive_as_they_were(
    mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """Files and folders arrive with the content they had when they were logged."""
    name = fresh_name()
    env = {"MLFLOW_TRACKING_URI": mlflow_server.url}
    run_script(LOGGING_FILES.format(name=name), cwd=tmp_path, env=env)
    eventually(lambda: artifacts(mlflow_server, name, tmp_path / "back") == FILES, 30, every=0.5)
    arrives(mlflow_server, name, LOSSES)
    eventually(lambda: [a.acknowledged - len(FILES) for a in accounts(autolog_home)] == [100])


def test_files_wait_for_the_metrics_and_for_the_server(
    faulty: FaultyProxy, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """After an outage the metrics arrive first and the files behind them."""
    faulty.refuse()
    name = fresh_name()
    env = {"MLFLOW_TRACKING_URI": faulty.url}
    run_script(LOGGING_FILES.format(name=name), cwd=tmp_path, env=env)
    faulty.pass_on()
    eventually(lambda: artifacts(mlflow_server, name, tmp_path / "back") == FILES, 40, every=0.5)
    asked = [request.path for request in faulty.requests]
    last_batch = max(i for i, path in enumerate(asked) if "log-batch" in path)
    first_file = min(i for i, path in enumerate(asked) if "mlflow-artifacts" in path)
    assert last_batch < first_file
    arrives(mlflow_server, name, LOSSES)


def test_a_killed_upload_process_is_replaced(
    faulty: FaultyProxy, mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """When the process that uploads dies in the middle of a file, another one does the work."""

    def hold_files(handler: Any, request: Any) -> None:
        (_hold if "mlflow-artifacts" in request.path else _pass)(handler, request)

    faulty._switch(hold_files)
    name = fresh_name()
    env = {"MLFLOW_TRACKING_URI": faulty.url}
    run_script(LOGGING_FILES.format(name=name), cwd=tmp_path, env=env)
    eventually(lambda: faulty.count("mlflow-artifacts") > 0, 30)
    (shipper,) = shippers(autolog_home)
    for uploader in shipper.children():
        uploader.kill()
    faulty.pass_on()
    eventually(lambda: artifacts(mlflow_server, name, tmp_path / "back") == FILES, 40, every=0.5)
    eventually(lambda: [a.uploads for a in accounts(autolog_home)] == [[]])


def test_a_file_that_cannot_be_uploaded_holds_up_nothing(
    faulty: FaultyProxy, mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """While one file fails again and again, other files and the metrics arrive."""

    def choke(handler: Any, request: Any) -> None:
        if "today" in request.path:
            handler.send(Reply(500, b"{}"))
        else:
            _pass(handler, request)

    faulty._switch(choke)
    name = fresh_name()
    env = {"MLFLOW_TRACKING_URI": faulty.url, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    run_script(LOGGING_FILES.format(name=name), cwd=tmp_path, env=env)
    others = {path: content for path, content in FILES.items() if "today" not in path}
    eventually(lambda: artifacts(mlflow_server, name, tmp_path / "back") == others, 40, every=0.5)
    eventually(lambda: faulty.count("today") >= 2, 20)
    again = fresh_name()
    run_script(
        f"""
        import autolog
        autolog.enable()
        with autolog.run("{again}"):
            autolog.log_metrics({{"loss": 1.0}}, step=0)
        """,
        cwd=tmp_path,
        env=env,
    )
    arrives(mlflow_server, again, {("loss", 0, 1.0)}, timeout=5)
    faulty.pass_on()
    eventually(lambda: artifacts(mlflow_server, name, tmp_path / "back") == FILES, 60, every=0.5)


# -- params ----------------------------------------------------------------------------------------


def params_json(server: MlflowServer, name: str, into: Path) -> dict[str, Any]:
    """The run's ``params.json``; an ``AssertionError`` while there is none."""
    found = artifacts(server, name, into)
    assert "params.json" in found
    content: dict[str, Any] = json.loads(found["params.json"])
    return content


def test_long_and_changed_params_are_whole_in_a_file(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """A param that is cut or changed is whole in a file; a huge one ends there in a hash."""
    name = fresh_name()
    source = f"""
        import autolog
        autolog.enable()
        with autolog.run("{name}"):
            autolog.log_params({{"long": "x" * 7000, "huge": "y" * 10_000_000, "lr": 0.1}})
            autolog.flush(30)
            autolog.log_params({{"lr": 0.2}})
            autolog.log_params({{"lr": 0.3}})
            autolog.log_metrics({{"loss": 1.0}}, step=0)
        print(autolog.flush(30))
    """
    done = run_script(source, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": mlflow_server.url})
    assert done.stdout == "6 logged, 6 stored\n"
    run = run_named(mlflow_server, name)
    assert run.data.params["lr"] == "0.1"
    assert run.data.params["long"].startswith("x" * 5000)
    assert len(run.data.params["long"]) == len(run.data.params["huge"]) == 6000
    assert run.data.tags["autolog.changed_params"] == "lr"
    digest = hashlib.sha256(b"y" * 10_000_000).hexdigest()[:12]
    cut = "y" * (LONGEST_PARAM - 16) + f"...#{digest}"
    assert params_json(mlflow_server, name, tmp_path / "back") == {
        "whole": {"long": "x" * 7000, "huge": cut},
        "changes": {"lr": ["0.2", "0.3"]},
    }


def test_a_change_during_the_upload_is_not_lost(
    faulty: FaultyProxy, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """A param that changes while ``params.json`` is on its way is in the file in the end."""
    faulty.slow(20, "mlflow-artifacts")
    name = fresh_name()
    os.mkfifo(tmp_path / "go")
    source = f"""
        import autolog
        autolog.enable(batch_seconds=0.1)
        with autolog.run("{name}"):
            autolog.log_params({{"lr": 0.1}})
            autolog.log_params({{"lr": 0.2}})
            open("go").read()
            autolog.log_params({{"lr": 0.3}})
            autolog.log_metrics({{"loss": 1.0}}, step=0)
            open("go").read()
    """
    process = start_script(source, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": faulty.url})
    eventually(lambda: faulty.count("mlflow-artifacts") > 0, 30)
    (tmp_path / "go").write_text("")
    eventually(lambda: stored(mlflow_server, name) == [("loss", 0, 1.0)])
    faulty.pass_on()
    (tmp_path / "go").write_text("")
    assert process.wait(20) == 0
    changes = {"lr": ["0.2", "0.3"]}
    eventually(
        lambda: params_json(mlflow_server, name, tmp_path / "back")["changes"] == changes,
        40,
        every=0.5,
    )


def test_thousands_of_params_arrive(
    mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """Three thousand params of one call are all on the server, none refused."""
    name = fresh_name()
    source = f"""
        import autolog
        autolog.enable()
        with autolog.run("{name}"):
            autolog.log_params({{f"layer{{i}}.units": i for i in range(3000)}})
        print(autolog.flush(60).complete)
    """
    done = run_script(source, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": mlflow_server.url})
    assert done.stdout == "True\n"
    params = run_named(mlflow_server, name).data.params
    assert params == {f"layer{i}.units": str(i) for i in range(3000)}
    assert dead_letters(autolog_home) == []
