"""Programs that log to MLflow by way of other libraries, as sources that define ``train()``."""

from __future__ import annotations

from typing import Final

SKLEARN: Final = """
import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier

x, y = load_iris(return_X_y=True)
mlflow.autolog(silent=True, log_models=False)

def train():
    with mlflow.start_run(run_name="mine"):
        f1_score(y, LogisticRegression(max_iter=300).fit(x, y).predict(x), average="macro")
    MLPClassifier((4,), max_iter=3, random_state=0).fit(x, y)
    GridSearchCV(LogisticRegression(max_iter=300), {"C": [0.1, 1]}, cv=2).fit(x, y)
"""

XGBOOST: Final = """
import mlflow
import numpy as np
import xgboost

x = np.random.default_rng(0).random((60, 3))
y = (x.sum(axis=1) > 1.5).astype(int)
mlflow.xgboost.autolog(silent=True, log_models=False)

def train():
    data = xgboost.DMatrix(x, y)
    options = {"max_depth": 2, "nthread": 1, "objective": "binary:logistic"}
    watched = [(data, "train"), (data, "again")]
    xgboost.train(options, data, 20, watched, verbose_eval=False)
    with mlflow.start_run(run_name="mine"):
        xgboost.train(options, data, 5, watched, early_stopping_rounds=2, verbose_eval=False)
"""

LIGHTGBM: Final = """
import lightgbm
import mlflow
import numpy as np

x = np.random.default_rng(0).random((60, 3))
y = (x.sum(axis=1) > 1.5).astype(int)
mlflow.lightgbm.autolog(silent=True, log_models=False)

def train():
    data = lightgbm.Dataset(x, y)
    options = {"objective": "binary", "num_threads": 1, "verbose": -1, "min_data_in_leaf": 2}
    lightgbm.train(options, data, 20, [data], ["train"])
    with mlflow.start_run(run_name="mine"):
        lightgbm.train(options, data, 5, [data], ["train"])
"""

KERAS: Final = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import mlflow
import numpy as np
import tensorflow

tensorflow.config.threading.set_inter_op_parallelism_threads(1)
tensorflow.config.threading.set_intra_op_parallelism_threads(1)
x = np.random.default_rng(0).random((16, 2))
y = x.sum(axis=1)

def fit(**options):
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(x, y, epochs=3, batch_size=8, verbose=0, validation_data=(x, y), **options)

def train():
    mlflow.tensorflow.autolog(silent=True, log_models=False)
    fit()
    with mlflow.start_run(run_name="mine"):
        fit()
    mlflow.tensorflow.autolog(disable=True)
    with mlflow.start_run(run_name="by callback") as run:
        fit(callbacks=[mlflow.keras.MlflowCallback(run)])
"""

LIGHTNING: Final = """
import logging
import lightning.pytorch as pl
import mlflow
import torch

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.set_num_threads(1)
x = torch.rand(16, 2, generator=torch.Generator().manual_seed(0))
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=4)

class Small(pl.LightningModule):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, index):
        loss = self.layer(batch[0]).square().mean()
        self.log("train_loss", loss, on_epoch=True)
        return loss
    def validation_step(self, batch, index):
        self.log("val_loss", self.layer(batch[0]).square().mean())
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)

def fit(logger=False):
    torch.manual_seed(0)
    pl.Trainer(
        max_epochs=3, logger=logger, accelerator="cpu", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    ).fit(Small(), loader, loader)

def train():
    mlflow.pytorch.autolog(silent=True, log_models=False)
    fit()
    with mlflow.start_run(run_name="mine"):
        fit()
    mlflow.pytorch.autolog(disable=True)
    place = {"tracking_uri": mlflow.get_tracking_uri(), "experiment_name": EXPERIMENT}
    fit(pl.loggers.MLFlowLogger(run_name="by logger", **place))
"""

TRANSFORMERS: Final = """
import os
os.environ["USE_TF"] = "0"
import mlflow
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from transformers.integrations import MLflowCallback

torch.set_num_threads(1)
data = [
    {"input_ids": torch.arange(4) + i, "attention_mask": torch.ones(4), "labels": i % 2}
    for i in range(8)
]
size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
size |= {"vocab_size": 16, "intermediate_size": 8, "max_position_embeddings": 8}

def fit(callbacks=None, **options):
    torch.manual_seed(0)
    if "logging_dir" in TrainingArguments.__dataclass_fields__:  # else named after the time
        options["logging_dir"] = "logs"
    options = TrainingArguments(
        output_dir="out", num_train_epochs=2, per_device_train_batch_size=4, logging_steps=1,
        eval_strategy="epoch", save_strategy="no", use_cpu=True, disable_tqdm=True, seed=0,
        **options,
    )
    model = BertForSequenceClassification(BertConfig(**size))
    Trainer(model, options, train_dataset=data, eval_dataset=data, callbacks=callbacks).train()

def train():
    fit(report_to=["mlflow"])
    with mlflow.start_run(run_name="mine"):
        fit(report_to=[], callbacks=[MLflowCallback()])
"""

SYSTEM: Final = """
import time
import mlflow

def train():
    mlflow.enable_system_metrics_logging()
    mlflow.set_system_metrics_sampling_interval(0.1)
    mlflow.set_system_metrics_samples_before_logging(2)
    with mlflow.start_run(run_name="measured"):
        for step in range(10):
            mlflow.log_metric("m", step, step=step)
            time.sleep(0.1)
    mlflow.disable_system_metrics_logging()
"""

FLUENT: Final = """
import threading
import mlflow

def work(number):
    with mlflow.start_run(run_name=f"thread {number}"):
        for step in range(5):
            mlflow.log_metrics({"m": step / 3, "n": -step}, step=step)
        with mlflow.start_run(run_name=f"child {number}", nested=True):
            mlflow.log_param("p", number)

def train():
    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with mlflow.start_run(run_name="resumed") as run:
        mlflow.log_metric("m", 1)
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("m", 2, step=1)
        mlflow.set_tag("again", "yes")
    client = mlflow.MlflowClient()
    for name in ("renamed", "renamed and left", "left"):
        begun = client.create_run(run.info.experiment_id, run_name="left")
        if name != "left":
            client.update_run(begun.info.run_id, name=name)
        client.log_metric(begun.info.run_id, "m", 1)
        if name == "renamed":
            client.set_terminated(begun.info.run_id)
"""

MODELS: Final = """
import matplotlib
matplotlib.use("agg")
import mlflow
import numpy as np
from matplotlib import pyplot
from sklearn.linear_model import LinearRegression

class Doubling(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * 2

x = np.arange(6.0).reshape(3, 2)
model = LinearRegression().fit(x, x.sum(axis=1))

def train():
    kept = {"pip_requirements": ["scikit-learn"]}
    with mlflow.start_run(run_name="models"):
        mlflow.log_metric("loss", 0.5, step=3)
        info = mlflow.sklearn.log_model(model, "linear", input_example=x, **kept)
        assert np.allclose(mlflow.sklearn.load_model(info.model_uri).predict(x), x.sum(axis=1))
        mlflow.pyfunc.log_model("doubling", python_model=Doubling(), **kept)
        mlflow.log_metric("loss", 0.25, step=4)
        figure, axes = pyplot.subplots()
        axes.plot([1, 2])
        mlflow.log_figure(figure, "figure.png")
        mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), "image.png")
        mlflow.log_table({"x": [1, 2]}, "table.json")
        mlflow.log_table({"x": [3]}, "table.json")
        mlflow.log_dict({"a": 1}, "folder/a.yaml")
        with open("note.txt", "w") as file:
            file.write("note")
        mlflow.log_artifact("note.txt")
        mlflow.log_artifact("note.txt", "folder")
    registered = mlflow.register_model(f"runs:/{info.run_id}/linear", f"of {EXPERIMENT}")
    assert int(registered.version) == 1
"""
