"""The optional packages: which extra of this package brings each, and what to say without one."""

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import lazy_loader

# How people call a package, and the extra that brings it.
OPTIONAL = {
    "keras": ("Keras", "tensorflow"),
    "tensorflow": ("TensorFlow", "tensorflow"),
    "tensorboard": ("TensorBoard", "tensorflow"),
    "torch": ("PyTorch", "torch"),
    "jax": ("JAX", "jax"),
    "optax": ("optax", "jax"),
    "sklearn": ("scikit-learn", "experiments"),
    "optuna": ("Optuna", "optuna"),
    "ray": ("Ray", "ray"),
    "matplotlib": ("Matplotlib", "plot"),
    "plotille": ("plotille", "plot"),
}


class MissingExtraError(ImportError):
    """A package that is optional here is needed and not installed; the message says what to do."""


def require(module: str) -> ModuleType:
    """Imports and returns an optional package, or raises a `MissingExtraError`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise explained(error) from None


def explained(error: ModuleNotFoundError) -> ImportError:
    """Returns the error that names the extra to install; `error` itself where none brings it."""
    name = (error.name or "").partition(".")[0]
    if name not in OPTIONAL or importlib.util.find_spec(name) is not None:
        return error
    title, extra = OPTIONAL[name]
    return MissingExtraError(
        f"{title} is not installed, and this needs it. The extra `{extra}` brings it: "
        f"`pip install -e '.[{extra}]'` in a clone of optimizer-factory",
        name=name,
    )


def no_attribute(module: str, name: str, names: Iterable[str]) -> AttributeError:
    """Returns the error of a module that has no `name`, with the nearest of those that it has."""
    # Here, since `import optimization` imports nothing.
    from optimization.configs.errors import did_you_mean

    near = "" if name.startswith("_") else did_you_mean(name, names)
    return AttributeError(f"module {module!r} has no attribute {name!r}{near}")


def attach_stub(package: str, file: str) -> tuple[Callable, Callable, list[str]]:
    """Returns the `__getattr__`, `__dir__` and `__all__` of a package that loads its names late.

    The names are those of the `.pyi` file beside `file`. As `lazy_loader.attach_stub`, but where an
    optional package is missing the error says which extra brings it.
    """
    load, names, exported = lazy_loader.attach_stub(package, file)

    def attribute(name: str) -> Any:
        try:
            return load(name)
        except ModuleNotFoundError as error:
            raise explained(error) from None
        except AttributeError:
            if name in exported:  # It is of the module that has it.
                raise
            raise no_attribute(package, name, exported) from None

    return attribute, names, exported
