"""Processes and threads around one run: nobody hangs, ends it, doubles it or inherits its data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import eventually, run_script, start_script
from trainings import group_of

from autolog.journal.owner import Lock
from autolog.journal.root import SHIPPER_LOCK

if TYPE_CHECKING:
    from readback import Experiment

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@forks
def test_a_forked_child_joins_the_run_open_at_the_fork(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Values of parent and os.fork child stand in one run, which the parent alone ends."""
    experiment.script(
        """
        import os, autolog
        autolog.enable()
        with autolog.run("both", tags={"who": "parent"}):
            autolog.log_metric("parent", 1.0, step=0)
            pid = os.fork()
            if pid == 0:
                autolog.log_metric("child", 2.0, step=0)
                autolog.end_run("KILLED")
                os._exit(0)
            os.waitpid(pid, 0)
            autolog.log_metric("parent", 3.0, step=1)
        """,
        tmp_path,
    )
    run = experiment.only_run()
    assert (run.info.run_name, run.info.status) == ("both", "FINISHED")
    assert experiment.values(run, "parent", 2) == [1.0, 3.0]
    assert experiment.values(run, "child", 1) == [2.0]
    assert run.data.tags["who"] == "parent"
    assert run.data.tags["mlflow.source.name"].endswith("train.py")


@forks
def test_a_forked_child_leaves_the_with_block_like_any_program(
    experiment: Experiment, tmp_path: Path
) -> None:
    """A child that walks out of ``with run():`` raises nothing, ends nothing and exits with 0."""
    experiment.script(
        """
        import os, autolog
        autolog.enable()
        with autolog.run("walked"):
            pid = os.fork()
            autolog.log_metric("parent" if pid else "child", 1.0, step=0)
            if pid:
                status = os.waitpid(pid, 0)[1]
        assert autolog.last_run() is not None
        if pid:
            assert status == 0, status
            autolog.log_params({"after": 1})
        """,
        tmp_path,
    )
    runs = experiment.runs(2)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert {p.key for p in experiment.points(runs["walked"])} == {"parent", "child"}


_METHODS = """
    import multiprocessing, sys
    import autolog

    def work(number):
        autolog.log_metric(f"child{number}", float(number), step=0)

    if __name__ == "__main__":
        autolog.enable()
        context = multiprocessing.get_context(sys.argv[1] if sys.argv[1:] else METHOD)
        for name in ("first", "second"):
            with autolog.run(name):
                autolog.log_metric("parent", 1.0, step=0)
                children = [context.Process(target=work, args=(n,)) for n in (1, 2)]
                for child in children:
                    child.start()
                for child in children:
                    child.join()
                    assert child.exitcode == 0, child.exitcode
"""


@pytest.mark.parametrize("method", [pytest.param("fork", marks=forks), "spawn", "forkserver"])
def test_children_join_the_run_open_at_their_start(
    method: str, experiment: Experiment, tmp_path: Path
) -> None:
    """A child of each kind logs to the run open when it was started, and has nothing to say."""
    source = _METHODS.replace("METHOD", repr(method))
    done = run_script(source, cwd=tmp_path, env=experiment.env)
    assert done.returncode == 0, done.stderr
    runs = experiment.runs(2)
    for name in ("first", "second"):
        assert runs[name].info.status == "FINISHED"
        for key in ("parent", "child1", "child2"):
            assert len(experiment.values(runs[name], key, 1)) == 1
        assert "mlflow.user" in runs[name].data.tags
    said = [line.partition("(")[0] for line in done.stderr.splitlines()]
    server = experiment.server.url
    assert said[:-1] == [
        f"autolog: run first -> {server}",
        "autolog: run first FINISHED ",
        "autolog: run second FINISHED ",
    ]


def test_options_of_enable_reach_spawned_children(experiment: Experiment, tmp_path: Path) -> None:
    """A spawned child writes where ``enable(dir=)`` says and is as strict as its parent."""
    folder = tmp_path / "elsewhere"
    experiment.script(
        f"""
        import multiprocessing
        import autolog

        def work():
            try:
                autolog.log_metrics({{"child": 1.0, "bad": "text"}}, step=0)
            except ValueError:
                autolog.log_metric("was strict", 1.0, step=0)

        if __name__ == "__main__":
            autolog.enable(dir={str(folder)!r})
            with autolog.run("run"):
                child = multiprocessing.get_context("spawn").Process(target=work)
                autolog.enable(strict=True)
                child.start()
                child.join()
            autolog.enable(strict=False)
        """,
        tmp_path,
    )
    run = experiment.only_run()
    assert experiment.values(run, "child", 1) == [1.0]
    assert {p.key for p in experiment.points(run)} == {"child"}
    assert not (tmp_path / "autolog-home").exists()


def test_a_nested_run_in_a_child_process_is_a_child_run(
    experiment: Experiment, tmp_path: Path
) -> None:
    """``with run():`` in a spawned worker hangs below the run that was open in the parent."""
    experiment.script(
        """
        import multiprocessing
        import autolog

        def work(number):
            with autolog.run(f"trial{number}"):
                autolog.log_metric("loss", float(number), step=0)

        if __name__ == "__main__":
            autolog.enable()
            with autolog.run("search"):
                with multiprocessing.get_context("spawn").Pool(2) as pool:
                    pool.map(work, [1, 2], chunksize=1)
                    pool.close()
                    pool.join()
        """,
        tmp_path,
    )
    runs = experiment.runs(3)
    search = runs["search"].info.run_id
    for number in (1, 2):
        trial = runs[f"trial{number}"]
        assert trial.info.status == "FINISHED"
        assert experiment.parent(trial) == search
        assert experiment.values(trial, "loss", 1) == [float(number)]


def test_a_script_without_a_main_guard_opens_no_second_run(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Spawn runs such a script again in the child: nothing is logged there, nothing hangs."""
    experiment.script(
        """
        import multiprocessing
        import autolog
        autolog.enable()
        def work():
            pass
        with autolog.run("once"):
            autolog.log_metric("m", 1.0, step=0)
            child = multiprocessing.get_context("spawn").Process(target=work)
            child.start()
            child.join()
            assert child.exitcode == 1, child.exitcode
        autolog.log_params({"after": 1})
        """,
        tmp_path,
    )
    runs = experiment.runs(2)
    assert experiment.values(runs["once"], "m", 1) == [1.0]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_loky_workers_log_to_the_run_of_their_parent(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Joblib's default workers join the open run; their fits make no runs of their own."""
    experiment.script(
        """
        import joblib
        import autolog

        def work(number):
            from sklearn.linear_model import SGDClassifier
            SGDClassifier(max_iter=5, tol=None).fit([[0.0], [1.0]], [0, 1])
            autolog.log_metric(f"worker{number}", float(number), step=0)

        if __name__ == "__main__":
            autolog.enable()
            with autolog.run("parallel"):
                joblib.Parallel(n_jobs=2)(joblib.delayed(work)(n) for n in range(4))
        """,
        tmp_path,
    )
    run = experiment.only_run()
    assert run.info.status == "FINISHED"
    assert [experiment.values(run, f"worker{n}", 1) for n in range(4)] == [[0], [1], [2], [3]]


@forks
def test_hooks_are_silent_in_workers_that_did_not_ask(
    experiment: Experiment, tmp_path: Path
) -> None:
    """A fit in a forked worker, as in a DataLoader, opens no run; one that calls enable() does."""
    experiment.script(
        """
        import multiprocessing
        import autolog
        from sklearn.linear_model import SGDClassifier

        def fit():
            SGDClassifier(max_iter=5, tol=None).fit([[0.0], [1.0]], [0, 1])

        def asked():
            autolog.enable()
            fit()

        if __name__ == "__main__":
            autolog.enable()
            with autolog.run("parent"):
                for target in (fit, fit, asked):
                    child = multiprocessing.get_context("fork").Process(target=target)
                    child.start()
                    child.join()
        """,
        tmp_path,
    )
    runs = experiment.runs(2)
    other = next(run for name, run in runs.items() if name != "parent")
    assert other.info.run_name.startswith("SGDClassifier-")
    assert other.info.status == "FINISHED"
    assert experiment.parent(other) == runs["parent"].info.run_id
    assert experiment.points(runs["parent"]) == set()


@forks
def test_workers_of_a_data_loader_log_into_the_open_run(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Calls from within a dataset are there once; the training beside them is the only one."""
    experiment.script(
        """
        import torch
        from torch.utils.data import DataLoader, Dataset
        import autolog

        class Rows(Dataset):
            def __len__(self):
                return 20
            def __getitem__(self, index):
                autolog.log_metric("row", float(index), step=index)
                return torch.ones(2) * index, torch.ones(1)

        autolog.enable()
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        loader = DataLoader(Rows(), batch_size=5, num_workers=2, multiprocessing_context="fork")
        with autolog.run("loaded"):
            for _ in range(2):
                for x, y in loader:
                    optimizer.zero_grad()
                    torch.nn.functional.mse_loss(model(x), y).backward()
                    optimizer.step()
        """,
        tmp_path,
    )
    run = experiment.only_run()
    assert len(experiment.values(run, "epoch_loss", 2)) == 2
    assert experiment.values(run, "row", 40) == [float(row // 2) for row in range(40)]


def test_workers_of_a_parent_that_does_not_log_send_by_themselves(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Where only the spawned workers use autolog, each is shipped, as a run of its own."""
    experiment.script(
        """
        import multiprocessing

        def work(name):
            import autolog
            autolog.enable()
            with autolog.run(name):
                autolog.log_metric("m", 1.0, step=0)

        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            for name in ("a", "b"):
                child = context.Process(target=work, args=(name,))
                child.start()
                child.join()
        """,
        tmp_path,
    )
    runs = experiment.runs(2)
    assert sorted(runs) == ["a", "b"]
    for run in runs.values():
        assert experiment.values(run, "m", 1) == [1.0]


_ENDINGS = """
    import multiprocessing, os, signal, sys
    import autolog

    def work(ending):
        autolog.set_tags({"ending": ending})
        autolog.log_metric("m", 1.0, step=0)
        if ending == "raises":
            raise ValueError("mine")
        if ending == "exits":
            sys.exit(3)
        if ending == "interrupted":
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()

    if __name__ == "__main__":
        autolog.enable()
        context = multiprocessing.get_context(METHOD)
        for ending in ("returns", "raises", "exits", "interrupted"):
            child = context.Process(target=work, args=(ending,))
            child.start()
            child.join()
"""


@pytest.mark.parametrize("method", [pytest.param("fork", marks=forks), "spawn", "forkserver"])
def test_a_run_of_a_child_ends_as_the_child_does(
    method: str, experiment: Experiment, tmp_path: Path
) -> None:
    """A run that a child opened has the child's status, also where no ``atexit`` is come to."""
    experiment.script(_ENDINGS.replace("METHOD", repr(method)), tmp_path)
    runs = experiment.runs(4).values()
    assert {run.data.tags["ending"]: run.info.status for run in runs} == {
        "returns": "FINISHED",
        "raises": "FAILED",
        "exits": "FAILED",
        "interrupted": "KILLED",
    }
    for run in runs:
        assert experiment.values(run, "m", 1) == [1.0]


@forks
def test_a_child_sees_to_it_that_somebody_sends(
    experiment: Experiment, tmp_path: Path, autolog_home: Path
) -> None:
    """What a short child logs is sent, though the shipper that its parent saw has left."""
    experiment.script("import autolog; autolog.log_metric('m', 0.0)", tmp_path)
    lock = Lock(group_of(autolog_home) / SHIPPER_LOCK)
    eventually(lock.acquire)  # from now on this process is the shipper that is there
    os.mkfifo(tmp_path / "go")
    process = start_script(
        """
        import multiprocessing, os
        import autolog
        from autolog import session
        autolog.enable()
        while not session.get().journals.keeper._wakes.empty():  # until it has seen the lock held
            os.sched_yield()
        print("ready", flush=True)
        open("go").read()
        child = multiprocessing.get_context("fork").Process(
            target=autolog.log_metric, args=("m", 1.0)
        )
        child.start()
        child.join()
        """,
        cwd=tmp_path,
        env=experiment.env,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    lock.release()
    (tmp_path / "go").write_text("")
    assert process.wait(20) == 0
    assert len(experiment.runs(2)) == 2


@forks
def test_terminating_a_child_says_nothing_of_the_parent(
    experiment: Experiment, tmp_path: Path
) -> None:
    """After terminate() and kill() of children that log, the parent's run is FINISHED."""
    experiment.script(
        """
        import multiprocessing, time
        import autolog

        def work(ready):
            autolog.log_metric("child", 1.0)
            ready.set()
            time.sleep(60)

        if __name__ == "__main__":
            autolog.enable()
            context = multiprocessing.get_context("fork")
            with autolog.run("survivor"):
                for end in ("terminate", "kill"):
                    ready = context.Event()
                    child = context.Process(target=work, args=(ready,))
                    child.start()
                    assert ready.wait(30)
                    getattr(child, end)()
                    child.join()
        """,
        tmp_path,
    )
    run = experiment.only_run()
    assert run.info.status == "FINISHED"
    experiment.values(run, "child", 2)


@forks
def test_a_child_does_not_keep_a_dead_parent_alive(experiment: Experiment, tmp_path: Path) -> None:
    """The run of a killed parent ends FAILED while a forked child of it still sleeps."""
    experiment.script(
        """
        import os, signal, time
        import autolog
        autolog.enable()
        autolog.log_metric("m", 1.0)
        assert autolog.flush(30).complete
        if os.fork() == 0:
            for fd in (1, 2):
                os.close(fd)
            time.sleep(60)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
        code=-9,
    )
    assert experiment.only_run().info.status == "FAILED"


def test_only_the_first_rank_logs(experiment: Experiment, tmp_path: Path) -> None:
    """RANK=1 of WORLD_SIZE=2 logs nothing, explicit calls included; RANK=0 does."""
    source = """
        import autolog
        from sklearn.linear_model import SGDClassifier
        autolog.enable()
        autolog.log_metric("loose", 1.0)
        with autolog.run("ranked") as run:
            autolog.log_metric("m", 1.0, step=0)
            SGDClassifier(max_iter=5, tol=None).fit([[0.0], [1.0]], [0, 1])
        print(run.metrics() == {})
    """
    assert experiment.script(source, tmp_path, RANK="1", WORLD_SIZE="2").strip() == "True"
    assert experiment.script(source, tmp_path, RANK="0", WORLD_SIZE="2").strip() == "False"
    assert "ranked" in experiment.runs(2)


def test_eight_threads_share_the_only_open_run(experiment: Experiment, tmp_path: Path) -> None:
    """Calls from threads, which have no context, lose nothing and open no second run."""
    experiment.script(
        """
        import threading
        import autolog
        autolog.enable()
        def write(number):
            for step in range(500):
                autolog.log_metrics({f"t{number}": step, "shared": number}, step=step)
        with autolog.run("threads"):
            threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        """,
        tmp_path,
    )
    run = experiment.only_run()
    for number in range(8):
        assert experiment.values(run, f"t{number}", 500) == list(range(500))


def test_threads_that_start_together_open_one_run(experiment: Experiment, tmp_path: Path) -> None:
    """Without an open run eight first calls at once open one, in one journal."""
    experiment.script(
        """
        import threading
        import autolog
        start = threading.Barrier(8)
        def write(number):
            start.wait()
            autolog.log_metric(f"t{number}", 1.0, step=0)
        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(autolog.status()["journals"]) == 1
        """,
        tmp_path,
    )
    run = experiment.only_run()
    assert len(experiment.points(run)) == 8


def test_threads_outside_of_two_open_runs_share_a_third(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Where neither context nor the only open run answers, one new run takes all such calls."""
    experiment.script(
        """
        import threading
        import autolog
        def write():
            for step in range(20):
                autolog.log_metric("loose", step, step=step)
        with autolog.run("outer"), autolog.run("inner"):
            for _ in range(2):
                thread = threading.Thread(target=write)
                thread.start()
                thread.join()
            autolog.log_metric("m", 1.0)
        """,
        tmp_path,
    )
    runs = experiment.runs(3)
    third = next(run for name, run in runs.items() if name not in ("outer", "inner"))
    assert len({p.step for p in experiment.points(third)}) == 20
    assert experiment.values(runs["inner"], "m", 1) == [1.0]


def test_finalizers_and_signal_handlers_may_log(experiment: Experiment, tmp_path: Path) -> None:
    """Calls out of the middle of others, the first one included, are not lost and share its run."""
    out = experiment.script(
        """
        import gc, itertools, signal
        import autolog
        autolog.enable()
        gc.set_threshold(1)
        counts = {"finalizer": itertools.count(), "signal": itertools.count()}

        def log(key):
            number = next(counts[key])
            autolog.log_metric(key, number, step=number)

        class Cycle:
            def __init__(self):
                self.me = self
            def __del__(self):
                log("finalizer")

        signal.signal(signal.SIGALRM, lambda *_: log("signal"))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for step in range(2000):
            Cycle()
            autolog.log_metrics({"m": step, f"other{step % 50}": 0.5}, step=step)
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.collect()
        print(*map(next, counts.values()))
        """,
        tmp_path,
    )
    finalized, signalled = map(int, out.split())
    assert finalized == 2000
    assert signalled > 0
    run = experiment.only_run()
    assert experiment.values(run, "m", 2000) == list(range(2000))
    assert len({p.value for p in experiment.points(run) if p.key == "finalizer"}) == finalized
    assert len({p.value for p in experiment.points(run) if p.key == "signal"}) == signalled


@pytest.mark.parametrize(
    ("ending", "code", "status"),
    [
        ("pass", 0, "FINISHED"),
        ("sys.exit(0)", 0, "FINISHED"),
        ("sys.exit(3)", 3, "FAILED"),
        ("raise ValueError('mine')", 1, "FAILED"),
        ("raise KeyboardInterrupt", -2, "KILLED"),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15, "KILLED"),
        ("os._exit(0)", 0, "FAILED"),
    ],
)
def test_a_run_ends_as_its_process_does(
    ending: str, code: int, status: str, experiment: Experiment, tmp_path: Path
) -> None:
    """A run without a context gets the status of the process; enable() is not needed for that."""
    experiment.script(
        f"""
        import os, signal, sys
        import autolog
        autolog.log_metric("m", 1.0)
        assert autolog.flush(30).complete
        {ending}
        """,
        tmp_path,
        code=code,
    )
    run = experiment.only_run()
    assert run.info.status == status
    assert experiment.values(run, "m", 1) == [1.0]


def test_sys_exit_in_a_thread_ends_no_run(experiment: Experiment, tmp_path: Path) -> None:
    """``sys.exit(1)`` in a thread ends that thread; the program, and so the run, ends well."""
    experiment.script(
        """
        import sys, threading
        import autolog
        autolog.log_metric("m", 1.0)
        thread = threading.Thread(target=sys.exit, args=(1,))
        thread.start()
        thread.join()
        """,
        tmp_path,
    )
    assert experiment.only_run().info.status == "FINISHED"
