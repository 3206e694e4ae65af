"""A trained ``torch.nn.Module`` as MLflow's flavor of PyTorch stores it: of torch and Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import torch

from autolog.recorder.models import Budget, Model

if TYPE_CHECKING:
    from torch.nn import Module

_WRAPPERS: Final = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")
_FOLDER: Final = "data"
_PICKLE_MODULE: Final = "mlflow.pytorch.pickle_module"


def unwrapped(module: Any) -> Module:
    """The user's own module within what torch wraps round it."""
    while True:
        if type(module).__name__ == "OptimizedModule":  # of torch.compile
            module = module._orig_mod  # noqa: SLF001 - what state_dict() calls it too
        elif type(module).__name__ in _WRAPPERS:
            module = module.module
        else:
            return module  # type: ignore[no-any-return]


def as_model(
    module: Module, *more_packages: str, signature: Mapping[str, str | None] | None = None
) -> Model:
    """A module, pickled whole; `more_packages` are what its class needs beside torch."""
    flavors: dict[str, dict[str, object]] = {
        "pytorch": {
            "model_data": _FOLDER,
            "pytorch_version": str(torch.__version__),
            "code": None,
        },
        "python_function": {
            "loader_module": "mlflow.pytorch",
            "data": _FOLDER,
            "pickle_module_name": _PICKLE_MODULE,
            "config": {"device": None},
        },
    }

    def write(path: Path, budget: Budget) -> None:
        budget.expect(_size(module))
        with budget.open(path) as file:
            torch.save(module, file, pickle_module=_pickle_module())

    packages = ("cloudpickle", "numpy", "torch", *more_packages)
    texts = {f"{_FOLDER}/pickle_module_info.txt": _PICKLE_MODULE}
    return Model(write, f"{_FOLDER}/model.pth", flavors, packages, texts, signature)


def _size(module: Module) -> int:
    """Bytes of the parameters and buffers, each counted once."""
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _pickle_module() -> Any:
    """What ``torch.save`` pickles with; cloudpickle takes classes of ``__main__`` along."""
    import cloudpickle

    return SimpleNamespace(
        Pickler=cloudpickle.CloudPickler, dumps=cloudpickle.dumps, __name__="cloudpickle"
    )
