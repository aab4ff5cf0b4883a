import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

import optimization

HEAVY = ("tensorflow", "keras", "torch", "jax", "optax")


def test_configs_and_curves_need_no_framework(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "optimizer: {type: adamw, adamw: {weight_decay_rate: 0.01}}\n"
        "learning_rate: {type: cosine, cosine: {initial_learning_rate: 1e-3, decay_steps: 1000}}\n"
        "warmup: {type: linear, linear: {warmup_steps: 100}}\n"
    )
    code = f"""
import sys, time
import optimization
config = optimization.OptimizationConfig.from_yaml({str(path)!r})
config.override(optimization.parse_override("optimizer.type=lamb,warmup.linear.warmup_steps=10"))
config.override({{"optimizer": {{"type": "adamw"}}}})
config.validate()
# Each takes a third of the time of all this.
assert not {{"numpy", "pydantic"}} & set(sys.modules)
curve = optimization.OptimizerFactory(config).learning_rate_curve(range(2000))
assert len(curve) == 2000 and curve[10] > curve[9]
assert "lamb" in list(optimization.OPTIMIZERS_CLS) and "cosine" in list(optimization.LR_CLS)
assert "linear" in list(optimization.WARMUP_CLS)
optimization.ExperimentConfig()
print(sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr == ""
    assert result.stdout == "[]\n"


ROOT = pathlib.Path(optimization.__file__).parent
FILES = {path: path.relative_to(ROOT.parent).with_suffix("").parts for path in ROOT.rglob("*.py")}
MODULES = {".".join(parts).removesuffix(".__init__"): path for path, parts in FILES.items()}
# What a package may import of this one as it is imported itself; the others are above all these.
BELOW = {
    "configs": {"configs", "extras", "matching", "rules", "schedules"},
    "matching": {"configs", "matching"},
    "schedules": {"configs", "extras", "schedules"},
    "rules": {"configs", "extras", "matching", "rules", "schedules"},
}
BELOW |= {name: {*BELOW["rules"], name} for name in ("bridges", "lint", "plots")}
BELOW["keras"] = BELOW["torch"] = {*BELOW["rules"], "caching", "range_test"}
# The files of `configs` that join sections of other packages; the rest is machinery.
JOINING = {
    *("batches", "comparing", "conflicts", "curve_checks", "experiment_config", "experiment_file"),
    *("auxiliary_groups", "factory", "group_config", "matcher_config"),
    *("optimization_config", "optimizer_config", "rate_curve", "rate_scaling"),
    *("json_schema", "sweep_config", "sweep_space"),
}
# The files outside of the packages for Keras that need it.
OF_KERAS = {f"optimization.schedules.{name}" for name in ("exact", "keras_schedules", "scaled")}


def imported(body):
    """Yields the modules that statements import when they are run, but not functions'."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imported(node.orelse)
        elif not isinstance(node, ast.FunctionDef):
            for name in ("body", "orelse", "handlers", "finalbody"):
                yield from imported(getattr(node, name, ()))


IMPORTS = {name: {*imported(ast.parse(path.read_text()).body)} for name, path in MODULES.items()}


def package_of(module):
    return module.partition(".")[2].partition(".")[0]


def test_imports_have_no_circles():
    order = {name: found & MODULES.keys() - {name} for name, found in IMPORTS.items()}
    assert len([*graphlib.TopologicalSorter(order).static_order()]) == len(MODULES)


@pytest.mark.parametrize("module", [m for m in MODULES if package_of(m) in BELOW])
def test_imports_point_one_way(module):
    package, found = package_of(module), IMPORTS[module]
    own = {package_of(name) for name in found if name.startswith("optimization.")}
    if package == "configs" and module.rpartition(".")[2] not in JOINING:
        joining = {f"optimization.configs.{name}" for name in JOINING}
        assert own <= {"configs", "extras"}
        assert not found & joining
    assert own <= (BELOW[package] | {package})
    if package not in ("keras", "torch") and module not in OF_KERAS:
        assert not {name.partition(".")[0] for name in found} & {*HEAVY}


def test_no_file_is_long():
    long = [n for n, path in MODULES.items() if len(path.read_text().splitlines()) > 400]
    assert long == []
