"""A trained ``torch.nn.Module`` as MLflow's flavor of PyTorch stores it: of torch and Lightning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from autolog import recorder
from autolog.callbacks import examples, schemas
from autolog.recorder.files import MODEL
from autolog.recorder.models import Budget, Duplicate, Model

if TYPE_CHECKING:
    from torch.nn import Module

Weights = Mapping[str, Tensor]
"""A state dict."""

_WRAPPERS: Final = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")
_FOLDER: Final = "data"
_PICKLE_MODULE: Final = "mlflow.pytorch.pickle_module"
_PROTOCOL: Final = 2
"""Of pickle, as ``torch.save`` has it."""


class Inputs(NamedTuple):
    """What a module takes, as far as that is known."""

    schema: schemas.Schema | None = None
    rows: Any = None
    """The first of them, on their device, where an example is wanted."""

    @classmethod
    def of(cls, batch: Any) -> Inputs:
        """The first thing in a batch, of which a few rows are kept at most. Waits for no device."""
        chosen = recorder.get().settings
        if not chosen.log_models:
            return cls()
        first = batch[0] if isinstance(batch, (list, tuple)) and batch else batch
        return cls(
            schemas.of(first) if chosen.log_model_signatures else None,
            examples.head(first) if chosen.log_input_examples else None,
        )


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
    module: Module,
    *more_packages: str,
    inputs: Inputs,
    read_weights: Callable[[], Weights] | None = None,
) -> Model:
    """A module, pickled whole; `more_packages` are what its class needs beside torch.

    What `read_weights` gives is written in the place of the module's own weights, which stay as
    they are. Where it is the same, the module is a `Duplicate` of the run's model.
    """
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
        substitutes = {} if read_weights is None else _substitutes(module, read_weights())
        with budget.open(path) as file:
            torch.save(module, file, pickle_module=_pickle_module(substitutes))
        if substitutes:
            raise ValueError("some of its weights are in no attribute of the module")

    packages = ("cloudpickle", "numpy", "torch", *more_packages)
    texts = {f"{_FOLDER}/pickle_module_info.txt": _PICKLE_MODULE}
    signature = schemas.signature(inputs.schema, None)
    example = examples.of(inputs.rows)
    return Model(write, f"{_FOLDER}/model.pth", flavors, packages, texts, signature, example)


def _size(module: Module) -> int:
    """Bytes of the parameters and buffers, each counted once."""
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _substitutes(module: Module, weights: Weights) -> dict[int, Tensor]:
    """What to write for each tensor of a module, by the id of that.

    Raises `ValueError` where the weights are another module's, `Duplicate` where they are its own.
    """
    own = module.state_dict(keep_vars=True)
    if own.keys() != weights.keys() or not all(_is_like(own[name], weights[name]) for name in own):
        raise ValueError("the checkpoint has other tensors than the module")
    if all(torch.equal(own[name].cpu(), weights[name]) for name in own):
        raise Duplicate(MODEL)
    return {id(own[name]): weights[name] for name in own}


def _is_like(one: object, other: object) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return False
    return one.shape == other.shape and one.dtype == other.dtype


def _pickle_module(substitutes: dict[int, Tensor]) -> Any:
    """What ``torch.save`` pickles with; cloudpickle takes classes of ``__main__`` along.

    Each of the `substitutes` that is written leaves the dict.
    """
    import cloudpickle

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
        def reducer_override(self, item: Any) -> Any:
            substitute: Any = substitutes.pop(id(item), None)
            if substitute is None:
                return super().reducer_override(item)
            if not isinstance(item, Parameter):
                return substitute.__reduce_ex__(_PROTOCOL)
            rebuild, (_, *rest) = item.__reduce_ex__(_PROTOCOL)  # type: ignore[no-untyped-call]
            return rebuild, (substitute, *rest)

    return SimpleNamespace(Pickler=Pickler, dumps=cloudpickle.dumps, __name__="cloudpickle")
