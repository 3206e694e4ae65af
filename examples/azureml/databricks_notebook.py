# Databricks notebook source
"""A notebook of Azure Databricks that logs to a workspace of Azure Machine Learning.

Its cluster was started with the script that ``autolog databricks-init`` prints, which leaves a
``config.json``. The person's own credential serves: the cluster passes credentials through.
"""

import azureml.mlflow
import mlflow
from azureml.core import Workspace
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

import autolog

# COMMAND ----------

place = autolog.workspace.from_config()
ws = Workspace.get(
    place.name, subscription_id=place.subscription_id, resource_group=place.resource_group
)
autolog.enable(workspace=ws, experiment="autolog-databricks")

# COMMAND ----------

x, y = load_digits(return_X_y=True)
MLPClassifier((32,), max_iter=5, random_state=0).fit(x / 16, y)

# COMMAND ----------

print(autolog.flush())
run = autolog.last_run()
print(azureml.mlflow.get_portal_url(mlflow.get_run(run.run_id)))
