"""Importing this registers every optimizer section: those of all files of this package."""

import importlib
import pkgutil

from optimization import rules

for _module in pkgutil.iter_modules(rules.__path__):
    importlib.import_module(f"{rules.__name__}.{_module.name}")
