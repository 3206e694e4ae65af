"""Seconds that logging adds to a real training in each framework, its whole process included."""

from __future__ import annotations

import subprocess
import tempfile
from typing import TYPE_CHECKING, NamedTuple

from figures import Figure, seconds_of_process
from programs import TRAININGS, units_of
from support import QUIET_MLFLOW

from peers.harness import SEARCH_PATH, Bench
from peers.tables import Results, Rows, grouped, median, spread, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Seconds added to a training, its process included"
_BARE = "nothing"
_OURS = "autolog.enable()"
_FLOOR = "list.append"


class Size(NamedTuple):
    """How much is measured."""

    seconds: float
    """Of one training; 0 makes two units of it."""
    rounds: int


FULL = Size(seconds=2, rounds=3)
QUICK = Size(seconds=0, rounds=1)

_MLFLOW = "import mlflow; mlflow.{}.autolog(log_models=False, silent=True); fit({{units}})"
_BY_HAND = """
import os
from peers.contenders import Place, contenders
contender = contenders()["{}"]
log = contender.begin(Place(os.getcwd(), os.environ["MLFLOW_TRACKING_URI"], "", "training"))
fit({{units}}, log)
contender.finish()
"""
_ENABLE = "import autolog; autolog.enable(silent=True{}); fit({{units}})"
_QUIET_AIM = "system_tracking_interval=None, log_system_params=False, capture_terminal_logs=False"
_QUIET_DVC = "save_dvc_exp=False, dvcyaml=False"
_SPARE_TENSORFLOW = """
from peers.contenders.tensorboard import spare_tensorflow
spare_tensorflow()
"""

_WAYS = {
    "PyTorch": {_OURS: _ENABLE.format(", log_every_n_steps=50")},
    "Lightning": {
        _OURS: _ENABLE.format(""),
        "AutologLogger": """
from autolog.callbacks.lightning import AutologLogger
fit({units}, AutologLogger())
""",
        "mlflow.pytorch.autolog()": _MLFLOW.format("pytorch"),
        "MLFlowLogger": """
import os
from lightning.pytorch.loggers import MLFlowLogger
fit({units}, MLFlowLogger(tracking_uri=os.environ["MLFLOW_TRACKING_URI"]))
""",
        "W&B offline": """
from lightning.pytorch.loggers import WandbLogger
fit({units}, WandbLogger())
""",
        "TensorBoard": f"""{_SPARE_TENSORFLOW}
from lightning.pytorch.loggers import TensorBoardLogger
fit({{units}}, TensorBoardLogger("."))
""",
        "Aim": f"""
from aim.pytorch_lightning import AimLogger
fit({{units}}, AimLogger(repo=".", {_QUIET_AIM}))
""",
        "DVCLive": f"""
from dvclive.lightning import DVCLiveLogger
fit({{units}}, DVCLiveLogger({_QUIET_DVC}))
""",
    },
    "Keras": {
        _OURS: _ENABLE.format(""),
        "AutologCallback": """
from autolog.callbacks.keras import AutologCallback
fit({units}, [AutologCallback()])
""",
        "mlflow.keras.autolog()": _MLFLOW.format("keras"),
        "mlflow.tensorflow.autolog()": _MLFLOW.format("tensorflow"),
        "MlflowCallback": """
import mlflow
from mlflow.keras.callback import MlflowCallback
with mlflow.start_run():
    fit({units}, [MlflowCallback()])
""",
        "W&B offline": """
import wandb
from wandb.integration.keras import WandbMetricsLogger
with wandb.init():
    fit({units}, [WandbMetricsLogger()])
""",
        "TensorBoard": 'fit({units}, [keras.callbacks.TensorBoard(".")])',
        "Aim": f"""
from aim.keras import AimCallback
fit({{units}}, [AimCallback(repo=".", {_QUIET_AIM})])
""",
        "DVCLive": f"""
from dvclive.keras import DVCLiveCallback
fit({{units}}, [DVCLiveCallback({_QUIET_DVC})])
""",
    },
    "scikit-learn": {
        _OURS: _ENABLE.format(""),
        "autologged()": """
from autolog.callbacks.sklearn import autologged
fit({units}, autologged)
""",
        "mlflow.sklearn.autolog()": _MLFLOW.format("sklearn"),
    },
}
"""How a training is logged, by framework and way; plain PyTorch also by each contender's call."""

_OFFLINE = {
    **QUIET_MLFLOW,
    "PYTHONPATH": SEARCH_PATH,
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_X_DISABLE_STATS": "true",
    "HF_HUB_OFFLINE": "1",
    "DVC_NO_ANALYTICS": "1",
}


def measure(bench: Bench) -> Rows:
    """A row for each framework, way and round; a way that fails has its error in place of times."""
    size = QUICK if bench.quick else FULL
    rows: Rows = []
    for framework in TRAININGS:
        units = units_of(framework, size.seconds)
        ways = {_BARE: "fit({units})", **_WAYS[framework]}
        if framework == "PyTorch":
            by_hand = [each.name for each in bench.contenders if each.name != "autolog"]
            ways |= {name: _BY_HAND.format(name) for name in by_hand}
        for number in range(size.rounds):
            for way, run in ways.items():
                program = TRAININGS[framework] + run.format(units=units)
                rows.append(
                    {
                        "framework": framework,
                        "way": way,
                        "round": number,
                        **_run(program, bench.server.url),
                    }
                )
        for way, line in _added(rows, framework).items():
            print(f"  {framework}, {way}: {line:+.2f} s", flush=True)
    return rows


def _run(program: str, target: str) -> dict[str, float | str]:
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return {"seconds": seconds_of_process(program, target, **_OFFLINE, HOME=folder)}
    except subprocess.CalledProcessError as error:
        return {"error": (error.stderr.strip() or str(error)).splitlines()[-1]}


def _added(rows: Rows, framework: str) -> dict[str, float]:
    """Medians over the training without any logging."""
    ways = grouped([row for row in rows if row["framework"] == framework], "way")
    medians = {way: median(own, "seconds") for way, own in ways.items() if _works(own)}
    bare = medians.pop(_BARE)
    return {way: seconds - bare for way, seconds in medians.items()}


def _works(rounds: Rows) -> bool:
    return not any("error" in row for row in rounds)


def figures(results: Results) -> list[Figure]:
    """The issue's target: the least of all."""
    found = []
    for framework in grouped(results["trainings"], "framework"):
        added = _added(results["trainings"], framework)
        ours = added.pop(_OURS)
        others = {way: s for way, s in added.items() if "utolog" not in way or "mlflow" in way}
        others.pop(_FLOOR, None)
        if others:
            way = min(others, key=lambda each: others[each])
            name = f"{framework}, seconds added, beside {way}, the next"
            found.append(Figure(name, ours, others[way], "s"))
    return found


def section(rows: Rows) -> str:
    """A table for each framework."""
    return "\n\n".join(_table(rows, framework) for framework in grouped(rows, "framework"))


def _table(rows: Rows, framework: str) -> str:
    ways = grouped([row for row in rows if row["framework"] == framework], "way")
    bare = median(ways.pop(_BARE), "seconds")
    lines = [[way, _line(rounds, bare)] for way, rounds in ways.items()]
    return table([f"{framework}, {bare:.1f} s without logging", "seconds added"], lines)


def _line(rounds: Rows, bare: float) -> str:
    errors = [row["error"] for row in rounds if "error" in row]
    if errors:
        return f"fails: `{errors[0]}`"
    return spread([row["seconds"] - bare for row in rounds], "{:.2f}".format)


def plot(rows: Rows, axes: Axes) -> None:
    """A bar for each way, grouped by framework."""
    for framework in grouped(rows, "framework"):
        added = _added(rows, framework)
        axes.barh([f"{framework}: {way}" for way in added], list(added.values()))
    axes.tick_params(axis="y", labelsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("seconds added, the process included")
