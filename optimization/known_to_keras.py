"""Lets Keras load models that were saved with this package, without importing it or Keras early.

Keras finds the class of a saved object in its list of custom objects, which a class enters when its
module is imported. The names are entered here as soon as Keras is imported, and stand for classes
whose modules are imported only when such a model is loaded.
"""

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

_OPTIMIZERS = "optimization.optimizers"
# Names that no registry has, and the modules that make them known.
_OTHERS = {
    "optimization>DynamicLossScale": "optimization.training.loss_scale",
    "optimization>PipelineOptimizer": _OPTIMIZERS,
    "optimization>ScaledLearningRate": "optimization.schedules.scaled",
    "optimization.transformers>AdamWeightDecay": "optimization.transformers.adam_weight_decay",
    "optimization.transformers>WarmUp": "optimization.transformers.warmup",
}


class _Later(NamedTuple):
    """Stands for a class of this package in Keras' list, until the first object is made."""

    name: str
    module: str

    def from_config(self, config: dict[str, Any]) -> Any:
        """Imports what makes the classes known to Keras, and makes an object of the right one."""
        import keras

        importlib.import_module(_OPTIMIZERS)  # for what is in the config
        importlib.import_module(self.module)
        # In the list itself: a load that is under way has a copy, in which this still stands.
        cls = keras.saving.get_custom_objects().get(self.name, self)
        if cls is self:
            raise TypeError(f"{self.name!r} is not known; import the module that registers it")
        return cls.from_config(config)


def _tell(keras: ModuleType) -> None:
    from optimization.configs.optimizer_config import OPTIMIZERS_CLS
    from optimization.schedules import LR_CLS, WARMUP_CLS

    def add(name: str, module: str = _OPTIMIZERS) -> None:
        known.setdefault(name, _Later(name, module))

    def add_optimizer(name: str, entry: Any) -> None:
        if entry.target is entry.config_class:  # a rule, of which the class is made
            add(f"optimization>{entry.config_class.origin().class_name}")
        elif not isinstance(entry.target, str):  # a class that a user registered
            add(f"optimization>Optimizer.{name}")
        elif entry.target.startswith("optimization."):
            add(f"optimization>{entry.target.partition(':')[2]}")

    known = keras.saving.get_custom_objects()
    for name, module in _OTHERS.items():
        add(name, module)
    OPTIMIZERS_CLS.subscribe(add_optimizer)
    LR_CLS.subscribe(lambda name, entry: add(f"optimization>LearningRate.{name}"))
    WARMUP_CLS.subscribe(lambda name, entry: add(f"optimization>Warmup.{name}"))


class _Finder:
    """Finds Keras as others do, and has `_tell` called once it is imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if name != "keras":
            return None
        found = (f.find_spec(name, path, target) for f in sys.meta_path if f is not self)
        spec = next((spec for spec in found if spec is not None), None)
        loader: Any = getattr(spec, "loader", None)
        if hasattr(loader, "exec_module"):
            execute = loader.exec_module

            def execute_and_tell(module: ModuleType) -> None:
                execute(module)
                if module.__name__ == "keras":  # a loader may be that of other modules too
                    _tell(module)

            loader.exec_module = execute_and_tell
        return spec


def make_known() -> None:
    """Makes the classes known to Keras: now, if it is imported, or when it will be."""
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "saving"):
        _tell(keras)
    else:
        sys.meta_path.insert(0, _Finder())
