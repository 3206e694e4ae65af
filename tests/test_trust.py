from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from commands import SECRET, autolog, log_offline, rich_user
from journals import KEY, encoded, lay_out, losses, run_start, write_meta

from autolog import records
from autolog.access import Gate
from autolog.journal import layout
from autolog.journal.progress import Progress
from autolog.records import Artifact, Kind
from autolog.workspace.address import Workspace

if TYPE_CHECKING:
    from faults import FaultyProxy
    from readback import Experiment


@pytest.fixture
def user(tmp_path: Path) -> dict[str, str]:
    """The environment of a user with every kind of credential for his own server."""
    return rich_user(tmp_path / "home")


def _foreign_journal(tmp_path: Path, target: str) -> Path:
    journal = tmp_path / "received" / "group" / "journal"
    lay_out(journal, [losses(3)])
    write_meta(journal, target=target)
    shutil.copy(journal / layout.OWNER_LOCK, journal / "copy")
    (journal / "copy").replace(journal / layout.OWNER_LOCK)
    return journal


def test_a_journal_gets_no_credential_for_the_target_it_names(
    faulty: FaultyProxy, tmp_path: Path, user: dict[str, str]
) -> None:
    """A server that only the journal names is sent no header from environment or files."""
    autolog("sync", _foreign_journal(tmp_path, faulty.url), env=user, code=0)
    assert faulty.count("log-batch") > 0
    for request in faulty.requests:
        assert "authorization" not in {name.lower() for name in request.headers}
        assert SECRET not in str(request.headers)


def test_a_named_target_gets_the_credential(
    faulty: FaultyProxy, tmp_path: Path, user: dict[str, str]
) -> None:
    """--to and MLFLOW_TRACKING_URI name it."""
    journal = _foreign_journal(tmp_path, faulty.url)
    autolog("sync", journal, "--to", faulty.url, env=user, code=0)
    assert all("Authorization" in request.headers for request in faulty.requests)


def test_a_workspace_is_the_same_with_its_host_and_without(tmp_path: Path) -> None:
    """So what a journal has sent to it is not sent again for the other spelling in --to."""
    workspace = Workspace("subscription", "group", "Name")
    with_host = workspace.at("eastus.api.azureml.ms").uri
    for to, target in ((with_host, workspace.uri), (workspace.uri, with_host.lower())):
        access = Gate(to, tmp_path).admit(tmp_path / "journal", target)
        assert (access.uri, access.target, access.is_trusted) == (to, target, True)
    other = Workspace("subscription", "group", "other").uri
    assert Gate(with_host, tmp_path).admit(tmp_path / "journal", other).target == with_host


def test_an_unnamed_target_that_wants_a_credential_is_answered_with_the_remedy(
    faulty: FaultyProxy, tmp_path: Path, user: dict[str, str]
) -> None:
    """401 from a server that only the journal names: the command that names it is said."""
    faulty.status(401)
    started = time.monotonic()
    done = autolog("sync", _foreign_journal(tmp_path, faulty.url), env=user, code=1)
    assert time.monotonic() - started < 30
    assert f"--to {faulty.url}" in done.stdout


def test_a_foreign_journal_may_not_choose_a_database(tmp_path: Path, user: dict[str, str]) -> None:
    """A file, a database or a plugin has to be named by the user."""
    database = tmp_path / "theirs.db"
    journal = _foreign_journal(tmp_path, f"sqlite:///{database}")
    done = autolog("sync", journal, env=user, code=1)
    assert f"--to sqlite:///{database}" in done.stdout
    assert not database.exists()
    autolog("sync", journal, "--to", f"sqlite:///{database}", env=user, code=0)
    assert database.exists()


def test_the_own_journals_may_choose_a_database(
    experiment: Experiment, new_store: Callable[[], str], tmp_path: Path
) -> None:
    """A run logged to a local database is synced there from any folder."""
    database = new_store()
    log_offline(experiment, tmp_path, MLFLOW_TRACKING_URI=database)
    (tmp_path / "elsewhere").mkdir()
    autolog("sync", cwd=tmp_path / "elsewhere", code=0)

    from mlflow import MlflowClient

    found = MlflowClient(database).get_experiment_by_name(experiment.name)
    assert found is not None
    assert len(MlflowClient(database).search_runs([found.experiment_id])) == 1


def test_a_hostile_journal_reaches_nothing_outside_itself(
    faulty: FaultyProxy, tmp_path: Path, user: dict[str, str]
) -> None:
    """Names with .. and links upload no file of the user's and write none, named target or not."""
    secret = tmp_path / "home" / "id_rsa"
    secret.write_text("PRIVATE KEY")
    before = _everything_in(tmp_path / "home")
    for number, (names, links) in enumerate(_attacks(secret)):
        journal = tmp_path / f"received{number}" / "group" / "journal"
        bodies = [*losses(2), *(encoded(Artifact(1, name, "x.txt")) for name in names)]
        bodies.append(_unchecked(records.RUN, key=f"../../../{'a' * 20}", run=2))
        lay_out(journal, [bodies])
        write_meta(journal, target=faulty.url)
        for name, place in links.items():
            (journal / name).parent.mkdir(parents=True, exist_ok=True)
            (journal / name).symlink_to(place)
        uploads = [[KEY, name, "x.txt", "file"] for name in names]
        state = Progress(uploads=uploads, run_ids={KEY: "f" * 32})
        if layout.PROGRESS not in links:
            state.store(journal)
        autolog("sync", journal, "--timeout", "5", "--to", faulty.url, env=user)
    assert "PRIVATE KEY" not in str([request.body for request in faulty.requests])
    assert _everything_in(tmp_path / "home") == before


@pytest.mark.parametrize("name", ["model", "...json"])
def test_the_model_of_a_hostile_journal_is_in_the_journal(
    name: str, faulty: FaultyProxy, tmp_path: Path, user: dict[str, str]
) -> None:
    """A description with another ending names no folder above it, to be uploaded or removed."""
    above = tmp_path / "received"
    journal = above / ".hidden" / "group" / "journal"
    model = {"key": "k", "number": 1, "timestamp": 1, "step": 0}
    model |= {"flavors": {}, "packages": {}, "python": "3.11"}
    lay_out(journal, [[*losses(2), encoded(Artifact(1, name, "m", Kind.MODEL))]])
    write_meta(journal, target=faulty.url)
    (journal / layout.FILES).mkdir()
    (journal / layout.FILES / name).write_text(json.dumps(model))
    (above / "mine.txt").write_text("PRIVATE KEY")
    autolog("sync", journal, "--timeout", "10", "--to", faulty.url, env=user)
    assert (above / "mine.txt").read_text() == "PRIVATE KEY"
    assert (journal / layout.META).exists()
    assert "PRIVATE KEY" not in str([request.body for request in faulty.requests])


def _attacks(secret: Path) -> Iterator[tuple[list[str], dict[str, Path]]]:
    home = secret.parent
    yield [f"../../../../home/{secret.name}", str(secret), "a/../../../x"], {}
    yield [secret.name], {layout.FILES: home}
    yield ["link"], {f"{layout.FILES}/link": secret}
    yield [], {layout.HELD: home}
    yield [], {layout.PROGRESS: secret, f"{layout.PROGRESS}.partial": secret}
    yield [], {layout.REJECTED: secret, "../shipper.json": secret, "../shipper.lock": secret}
    yield [], {"../shipper.json.partial": secret, "../shipper.log": secret}


def _unchecked(kind: int, **changes: Any) -> bytes:
    body = records.encode(run_start(**changes))
    assert body[0] == kind
    return body


def _everything_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def test_a_journal_cannot_steer_the_terminal(tmp_path: Path, user: dict[str, str]) -> None:
    """Control characters in what a journal says are not printed."""
    journal = _foreign_journal(tmp_path, "sqlite:///\x1b]0;owned\x07.db")
    elsewhere, here = str(tmp_path / "elsewhere"), str(journal.parent.parent)
    for home, *command in ((elsewhere, "sync", here), (here, "status")):
        done = autolog(*command, env={**user, "AUTOLOG_DIR": home})
        assert "\x1b" not in done.stdout + done.stderr
        assert "owned" in done.stdout + done.stderr
