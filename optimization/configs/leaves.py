"""The single values of a tree of configs, and what layer after layer made of each."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from optimization.configs.base import Config
from optimization.configs.errors import DEFAULT, PYTHON, Origin, Problem
from optimization.configs.layers import layered
from optimization.configs.tree import Node, configs_in

ConfigT = TypeVar("ConfigT", bound=Config)


class Leaf(NamedTuple):
    """One value of a config: a number, a text, a list of these, but no section."""

    holder: Node
    name: str
    value: Any

    @property
    def path(self) -> str:
        """The place of the value, from the root."""
        return self.holder._join(self.name)

    @property
    def origin(self) -> Origin:
        """Where the value was written."""
        return self.holder._origins.get(self.name, DEFAULT)

    @property
    def is_default(self) -> bool:
        """Whether the value is the default, also where somebody wrote it."""
        usual = self.holder._defaults()
        return self.name in usual and self.value == usual[self.name]


def leaves(config: Node, unselected: bool = False) -> Iterator[Leaf]:
    """Yields the values of a config that count, and if asked those of branches `unselected`."""
    items = dict(config._items())
    if unselected:
        items |= {n: config.__dict__[n] for n in config.field_names() if n in config.__dict__}
    for name, value in items.items():
        below = [child for _, child in configs_in(value)]
        if not below:
            yield Leaf(config, name, value)
        for child in below:
            yield from leaves(child, unselected)


class Written(NamedTuple):
    """A value, and where it was written."""

    value: Any
    origin: Origin


def histories(
    base: ConfigT, layers: Iterable[Mapping]
) -> tuple[ConfigT, dict[str, list[Written]], list[Problem]]:
    """Applies layers to a copy of `base` one by one, and looks after each.

    Returns:
        What `layered` returns for all of them at once, and between the two by its path all that
        each value has been: its default first, the value that counts last.
    """
    config, problems = layered(base, [])
    usual = {leaf.path: leaf.value for leaf in leaves(_untouched(base), unselected=True)}
    histories = {path: [Written(value, DEFAULT)] for path, value in usual.items()}
    _look(config, histories)
    for layer in layers:
        config, found = layered(config, [layer])
        problems += found
        _look(config, histories)
    return config, histories, problems


def _untouched(base: Config) -> Config:
    """Returns what a config of the class starts as, with sections of the same classes."""
    fresh = type(base)()
    for name, value in base._items():
        if isinstance(value, Node) and type(value) is not type(fresh.__dict__[name]):
            fresh.__dict__[name] = section = type(value)()
            section._move(name)
    return fresh


def _look(config: Config, histories: dict[str, list[Written]]) -> None:
    """Adds what is new in `config` to the histories of its values."""
    for leaf in leaves(config, unselected=True):
        now = Written(leaf.value, leaf.origin)
        default = Written(leaf.holder._spec_of(leaf.name).default(), DEFAULT)
        chain = histories.setdefault(leaf.path, [default])
        # What code makes of a section that its holder starts with is the default.
        is_same = chain[-1] == now or (leaf.origin == PYTHON and chain[-1].value == now.value)
        if not is_same:
            chain.append(now)
