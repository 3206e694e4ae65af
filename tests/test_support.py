"""The tools of the tests, tested: a fault that never happens proves nothing."""

from __future__ import annotations

import math
import time
from pathlib import Path

import psutil
import pytest
import requests
from faults import FaultyProxy
from support import MlflowServer, Point, eventually, free_port, run_script, start_script

SHORT = 0.5
HEALTH = "/health"


@pytest.fixture
def own_server(tmp_path: Path) -> MlflowServer:
    """A server that the test may kill."""
    server = MlflowServer(tmp_path)
    server.start()
    yield server
    server.kill()


def _create_experiment(url: str, name: str) -> requests.Response:
    return requests.post(
        f"{url}/api/2.0/mlflow/experiments/create", json={"name": name}, timeout=10
    )


class TestEventually:
    def test_returns_the_first_true_result(self) -> None:
        """A check is asked again until it says something true."""
        answers = iter([0, None, "done"])
        assert eventually(lambda: next(answers), every=0) == "done"

    def test_gives_up_in_time_and_tells_why(self) -> None:
        """Past the deadline the last failed assertion is the message."""

        def check() -> None:
            raise AssertionError("seven is missing")

        started = time.monotonic()
        with pytest.raises(AssertionError, match="seven is missing"):
            eventually(check, timeout=0.1)
        assert time.monotonic() - started < 5

    def test_other_errors_pass_at_once(self) -> None:
        """A bug in a check is no reason to wait."""
        with pytest.raises(KeyError):
            eventually(lambda: {}["absent"], timeout=60)


class TestScripts:
    def test_runs_in_a_fresh_process(self, tmp_path: Path) -> None:
        """A script has its own process, the given environment and its folder as cwd."""
        source = """
            import os, sys
            print(os.environ["COLOUR"], os.getcwd(), os.path.basename(sys.argv[0]))
            sys.exit(3)
        """
        done = run_script(source, cwd=tmp_path, env={"COLOUR": "red"})
        assert done.returncode == 3
        assert done.stdout == f"red {tmp_path} train.py\n"

    def test_a_hang_is_ended_with_its_children(self, tmp_path: Path) -> None:
        """A script past its time is killed, and its children too."""
        source = """
            import subprocess, sys
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            print(child.pid, flush=True)
            child.wait()
        """
        with pytest.raises(AssertionError, match="still running") as caught:
            run_script(source, cwd=tmp_path, timeout=2)
        child = int(str(caught.value).splitlines()[1])
        eventually(lambda: not _runs(child))

    def test_a_started_script_can_be_talked_to(self, tmp_path: Path) -> None:
        """`start_script` returns while the script runs."""
        process = start_script("print('up', flush=True); input()", cwd=tmp_path)
        assert process.stdout.readline() == "up\n"
        assert process.wait(10) != 0


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class TestMlflowServer:
    def test_points_are_what_was_logged(self, mlflow_server: MlflowServer) -> None:
        """Every value comes back with its key, step and time, NaN included."""
        client = mlflow_server.client()
        run = client.create_run("0").info.run_id
        client.log_metric(run, "loss", 0.1, timestamp=1_000, step=7)
        client.log_metric(run, "loss", math.nan, timestamp=2_000, step=8)
        assert mlflow_server.points(run) == {
            Point("loss", 7, 1_000, 0.1),
            Point("loss", 8, 2_000, math.nan),
        }
        assert run in mlflow_server.run_ids()

    def test_killed_and_started_again_it_has_its_data(self, own_server: MlflowServer) -> None:
        """After SIGKILL the port is closed; after a new start the same url has the same runs."""
        run = own_server.client().create_run("0").info.run_id
        own_server.kill()
        with pytest.raises(requests.ConnectionError):
            requests.get(own_server.url + HEALTH, timeout=SHORT)
        assert own_server.run_ids() == [run]
        own_server.start()
        assert own_server.client().get_run(run).info.run_id == run


class TestFaultyProxy:
    def test_passes_on_and_remembers(self, faulty: FaultyProxy) -> None:
        """Untold, the proxy is invisible, and keeps what it saw."""
        reply = _create_experiment(faulty.url, "passed on")
        assert reply.status_code == 200
        assert reply.json()["experiment_id"]
        assert faulty.count("experiments/create") == 1
        seen = faulty.requests[0]
        assert (seen.method, seen.body) == ("POST", b'{"name": "passed on"}')
        assert seen.headers["Content-Type"] == "application/json"

    def test_refuses_and_comes_back(self, faulty: FaultyProxy) -> None:
        """Refusing closes the port and kept connections; passing on opens the same port."""
        with requests.Session() as kept:
            kept.get(faulty.url + HEALTH, timeout=5)
            faulty.refuse()
            with pytest.raises(requests.ConnectionError):
                kept.get(faulty.url + HEALTH, timeout=5)
            faulty.pass_on()
            assert kept.get(faulty.url + HEALTH, timeout=5).status_code == 200

    def test_black_hole_takes_the_request_and_never_answers(self, faulty: FaultyProxy) -> None:
        """The connection stands, the answer does not come."""
        faulty.black_hole()
        with pytest.raises(requests.ReadTimeout):
            requests.get(faulty.url + HEALTH, timeout=SHORT)
        assert faulty.count(HEALTH) == 1

    @pytest.mark.parametrize("code", [401, 403, 404, 413, 429, 500, 503])
    def test_answers_a_status(self, faulty: FaultyProxy, code: int) -> None:
        """A status is answered without the server knowing."""
        faulty.status(code)
        reply = _create_experiment(faulty.url, f"refused {code}")
        assert reply.status_code == code
        assert "Retry-After" not in reply.headers
        faulty.status(code, retry_after=3)
        assert _create_experiment(faulty.url, f"refused {code}").headers["Retry-After"] == "3"
        faulty.pass_on()
        assert _create_experiment(faulty.url, f"refused {code}").status_code == 200

    def test_answers_html(self, faulty: FaultyProxy) -> None:
        """A sign-in page comes with status 200."""
        faulty.html()
        reply = requests.get(faulty.url + HEALTH, timeout=5)
        assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/html")

    def test_loses_the_reply_of_what_was_done(self, faulty: FaultyProxy) -> None:
        """The server acted, and the client cannot know it."""
        faulty.lose_reply()
        with pytest.raises(requests.ConnectionError):
            _create_experiment(faulty.url, "done in silence")
        faulty.pass_on()
        again = _create_experiment(faulty.url, "done in silence")
        assert again.json()["error_code"] == "RESOURCE_ALREADY_EXISTS"

    def test_cuts_the_reply(self, faulty: FaultyProxy) -> None:
        """Half of a body arrives, then the connection ends."""
        faulty.cut()
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            _create_experiment(faulty.url, "cut in half")

    def test_resets_the_connection_once_the_server_has_acted(self, faulty: FaultyProxy) -> None:
        """The client is told of a reset, not of an end."""
        faulty.reset()
        with pytest.raises(requests.ConnectionError, match="reset by peer"):
            _create_experiment(faulty.url, "done before the reset")
        faulty.pass_on()
        again = _create_experiment(faulty.url, "done before the reset")
        assert again.json()["error_code"] == "RESOURCE_ALREADY_EXISTS"

    def test_garbles(self, faulty: FaultyProxy) -> None:
        """What it is given comes with status 200, and the server knows nothing."""
        faulty.garble(b"{")
        reply = _create_experiment(faulty.url, "garbled")
        assert (reply.status_code, reply.content) == (200, b"{")
        faulty.pass_on()
        assert _create_experiment(faulty.url, "garbled").status_code == 200

    def test_demands_a_credential(self, faulty: FaultyProxy) -> None:
        """Who has the header passes; anybody else is told 401, as who has the former one."""
        faulty.demand("Bearer one")
        headers = {"Authorization": "Bearer one"}
        assert requests.get(faulty.url + HEALTH, timeout=5).status_code == 401
        assert requests.get(faulty.url + HEALTH, headers=headers, timeout=5).status_code == 200
        faulty.demand("Bearer two")
        assert requests.get(faulty.url + HEALTH, headers=headers, timeout=5).status_code == 401

    def test_slow_is_slow(self, faulty: FaultyProxy) -> None:
        """The reply comes, after the delay."""
        faulty.slow(SHORT)
        started = time.monotonic()
        assert requests.get(faulty.url + HEALTH, timeout=5).status_code == 200
        assert time.monotonic() - started >= SHORT

    def test_a_dead_server_shows_as_no_reply(self) -> None:
        """Before a dead server the proxy drops the connection, and answers nothing of its own."""
        with (
            FaultyProxy(f"http://127.0.0.1:{free_port()}") as proxy,
            pytest.raises(requests.ConnectionError),
        ):
            requests.get(proxy.url + HEALTH, timeout=5)
