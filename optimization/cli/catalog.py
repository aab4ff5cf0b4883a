"""The types that there are: what each is, and which class implements it on which backend."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from optimization.configs.base import Config
from optimization.configs.documentation import description, first_sentence
from optimization.configs.errors import did_you_mean
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.configs.registry import Registry
from optimization.rules.rule import Rule, native_name
from optimization.schedules import LR_CLS, WARMUP_CLS
from optimization.schedules.metric import MetricLrConfig

REGISTRIES: dict[str, Registry] = {
    "optimizer": OPTIMIZERS_CLS,
    "learning_rate": LR_CLS,
    "warmup": WARMUP_CLS,
}
"""The registry of each section."""
_SHOWS = "; `optfactory list optimizers` (or learning_rates, or warmups) shows those that there are"


class Type(NamedTuple):
    """A type of a section.

    Attributes:
        section: `optimizer`, `learning_rate` or `warmup`.
        name: The name that `type` has.
        config_class: The class of its section.
        backends: What implements it, by the backend; a backend that has it not is not there.
    """

    section: str
    name: str
    config_class: type[Config]
    backends: dict[str, str]

    @property
    def summary(self) -> str:
        """The first sentence of what it is."""
        return first_sentence(self.config_class)

    @property
    def description(self) -> str:
        """What it is, with its formula, without the examples and the source."""
        return "\n\n".join(part for part in self._parts() if not part.startswith("Source:"))

    @property
    def source(self) -> str:
        """The paper, or the code that it is as in; "" if none is named."""
        found = [part for part in self._parts() if part.startswith("Source:")]
        return " ".join(found[0].removeprefix("Source:").split()) if found else ""

    def _parts(self) -> list[str]:
        parts = description(self.config_class).split("\n\n")
        return [part for part in parts if part and not part.lstrip().startswith(">>>")]


def types(section: str) -> Iterator[Type]:
    """Yields the types of a section, those of one's own that were imported too."""
    backends = _of_optimizer if section == "optimizer" else _of_schedule
    for name, entry in REGISTRIES[section].entries():
        yield Type(section, name, entry.config_class, backends(entry))


def find(name: str) -> list[Type]:
    """Returns the types of a name; `warmup.linear` is that of a section alone.

    Raises:
        KeyError: If there is none, with the nearest name.
    """
    section, _, bare = name.rpartition(".")
    sections = [section] if section in REGISTRIES else [*REGISTRIES]
    found = [kind for each in sections for kind in types(each) if kind.name == bare]
    if not found or (section and section not in REGISTRIES):
        names = [known for each in sections for known in REGISTRIES[each]]
        unavailable = {
            k: why for each in sections for k, why in REGISTRIES[each].unavailable.items()
        }
        hint = did_you_mean(bare, names) or _SHOWS
        raise KeyError(unavailable.get(name) or f"there is no type {name!r}{hint}")
    return found


def _of_optimizer(entry: Any) -> dict[str, str]:
    config_class = entry.config_class
    if not issubclass(config_class, Rule):
        natively = {"PyTorch": _class_name(entry.torch)} if entry.torch else {}
        return {"Keras": _class_name(entry.target), **natively}
    rule: Any = config_class.origin()
    # A rule that has no class of its own natively names the one that does its steps.
    native = native_name(rule) or rule.native_note.strip("`")
    torch = f"optimization.torch.{native}"
    if config_class.torch_class:
        torch += f"; torch.optim.{config_class.torch_class} with {config_class.torch_note}"
    return {
        "Keras": f"optimization.optimizers.{rule.class_name}",
        "PyTorch": torch,
        "JAX": "optimization.jax.OptimizerFactory, a transformation of optax",
    }


def _of_schedule(entry: Any) -> dict[str, str]:
    config_class = entry.config_class
    if issubclass(config_class, MetricLrConfig):
        return {
            "Keras": "optimization.MetricLearningRate, a callback",
            "PyTorch": "optimization.torch.OptimizerFactory, a scheduler that takes the metric",
        }
    torch = "optimization.torch.ConfiguredScheduler"
    if config_class.keras_class is not None:
        return {"Keras": _class_name(config_class.keras_class), "PyTorch": f"{torch}, by Keras"}
    return {
        "Keras": "keras.optimizers.schedules.LearningRateSchedule, made of the formula",
        "PyTorch": torch,
        "JAX": "optax.Schedule, by optimization.jax.OptimizerFactory",
    }


def _class_name(target: Any) -> str:
    if isinstance(target, str):
        return target.replace(":", ".")
    return f"{target.__module__}.{target.__qualname__}"
