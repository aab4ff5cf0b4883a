"""Makes optimizers that users register known to Keras, so that models saved with them load."""

import keras

from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.configs.registry import Entry


def _make_known(name: str, entry: Entry) -> None:
    cls = entry.target
    if cls is entry.config_class:  # a rule, of which the class is made, and made known
        OPTIMIZERS_CLS[name]
        return
    if not isinstance(cls, type) or cls.__module__.startswith("keras."):
        return
    if keras.saving.get_registered_name(cls) == cls.__name__:  # not known to Keras yet
        keras.saving.register_keras_serializable("optimization", f"Optimizer.{name}")(cls)


OPTIMIZERS_CLS.subscribe(_make_known)
