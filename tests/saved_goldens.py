"""The saved files of `golden/saved`, and what is trained on from them.

What is in the folder for a side, "keras", "torch" or "jax":

- `<side>.tar.xz`: the files of each case, as they were saved after `STEPS` steps; none for JAX,
  whose states are arrays by their paths;
- `<side>.json`: of each case what makes it, the versions that wrote it, and the names;
- `<side>.npz`: of each case all values when it was saved, and after `STEPS` steps more.
"""

import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "golden" / "saved"
STEPS = 3
# Of the largest value of a variable. On one machine training goes on bit for bit; another CPU's
# kernels round the last bits of float32 otherwise, and three steps add that up.
TOLERANCE = 1e-6
# A weight of low precision is a rounded copy: a last bit of the copy may be one of its own.
TOLERANCES = {"bfloat16": 2.0**-8, "float16": 2.0**-11}

Values = dict[str, np.ndarray]


class Goldens:
    """The saved files of one side.

    Attributes:
        cases: Of each case, by name, what the JSON file has.
    """

    def __init__(self, side: str):
        self.side = side
        self._json, self._npz, self.archive = (
            FOLDER / f"{side}.{suffix}" for suffix in ("json", "npz", "tar.xz")
        )
        self.cases: dict[str, dict[str, Any]] = {}
        self._vectors: dict[str, np.ndarray] = {}
        if self._json.exists():
            self.cases = json.loads(self._json.read_text())
            with np.load(self._npz) as stored:
                self._vectors = dict(stored)

    def unpack(self, directory: Path) -> Path:
        """Unpacks the files, those of a case into a folder of its name."""
        with tarfile.open(self.archive) as archive:
            archive.extractall(directory, filter="data")
        return directory

    def values(self, name: str, when: str) -> Values:
        """Returns the values of a case, `when` it was "saved" or had "trained" on."""
        vector = iter(self._vectors[f"{name}|{when}"])
        return {
            path: np.array([next(vector) for _ in range(int(np.prod(shape)))]).reshape(shape)
            for path, (_, shape) in self.cases[name]["variables"].items()
        }

    def add(self, name: str, case: dict[str, Any], values: Mapping[str, Values]) -> None:
        """Adds a case, with the values at each time."""
        self.cases[name] = case
        for when, found in values.items():
            flat = [np.asarray(found[path], "float64").ravel() for path in case["variables"]]
            self._vectors[f"{name}|{when}"] = np.concatenate(flat)

    def write(self, directory: Path) -> None:
        """Writes everything; the files of a case are those in `directory`, under its name."""
        self._json.write_text(as_lines(self.cases))
        vectors = {k: v for k, v in self._vectors.items() if k.rpartition("|")[0] in self.cases}
        np.savez_compressed(self._npz, **vectors)
        paths = [p for name in self.cases for p in sorted((directory / name).rglob("*"))]
        files = list(filter(Path.is_file, paths))
        if not files:
            return
        with tarfile.open(self.archive, "w:xz") as archive:
            for path in files:
                member = archive.gettarinfo(path, path.relative_to(directory).as_posix())
                member.mtime = member.uid = member.gid = 0
                member.uname = member.gname = ""
                with path.open("rb") as file:
                    archive.addfile(member, file)


def as_lines(cases: Mapping[str, Any]) -> str:
    """Returns cases as JSON, one on a line, so that a difference shows whose it is."""
    lines = [f"{json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def gradients(shapes: Sequence[Sequence[int]], step: int, case: Mapping[str, Any]) -> list[Any]:
    """Returns the gradient of each variable at a step, from 0 on; None for none.

    A case with "without" has no gradient for its second variable at step 1, and one with
    "overflow" has an infinite one for its first. With "goes_somewhere" they have a direction in
    common.
    """
    random, mean = np.random.default_rng([11, step]), 1 if case.get("goes_somewhere") else 0
    found: list[Any] = [random.normal(mean, 0.5, shape).astype("float32") for shape in shapes]
    if step == 1 and case.get("without"):
        found[1] = None
    if step == 1 and case.get("overflow"):
        found[0] = np.full_like(found[0], np.inf)
    return found


def kinds(values: Mapping[str, Any]) -> dict[str, tuple[str, list[int]]]:
    """Returns the dtype and the shape of each value."""
    return {name: (value.dtype.name, list(value.shape)) for name, value in values.items()}


def largest_error(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[float, str]:
    """Returns the largest difference of any variable, relative to its largest value, and whose."""
    assert sorted(actual) == sorted(expected)
    errors = {"": 0.0}
    for name, value in expected.items():
        value, ours = np.asarray(value, "float64"), np.asarray(actual[name], "float64")
        if value.size and not np.array_equal(value, ours):
            errors[name] = float(np.abs(ours - value).max() / max(np.abs(value).max(), 1e-30))
    name = max(errors, key=errors.__getitem__)
    return errors[name], name


def assert_same(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Asserts that values are those that were saved, bit for bit."""
    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(np.asarray(actual[name], "float64"), value, err_msg=name)


def assert_close(
    actual: Mapping[str, Any], expected: Mapping[str, Any], case: Mapping[str, Any]
) -> None:
    """Asserts that values are those that were trained, but for the rounding of another CPU."""
    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        if case.get("follows") and "layer_0/bias" in name:
            continue  # normalization of the batch follows it: its real gradient is rounding alone
        error, _ = largest_error({name: actual[name]}, {name: value})
        tolerance = tolerance_of(case, case["variables"][name][0])
        assert error <= tolerance, f"{name} differs by {error:.1e} of its largest value"


def tolerance_of(case: Mapping[str, Any], dtype: str) -> float:
    """Returns how far a value of a dtype may be from what was trained, of the largest value."""
    return max(case.get("tolerance", TOLERANCE), TOLERANCES.get(dtype, 0.0))


def assert_still_there(stored: Any, now: Any, path: str = "") -> None:
    """Asserts that a config has what was saved of it.

    It may have more, of a later version, and its classes may be elsewhere: `load_model` finds them
    by their registered names.
    """
    if isinstance(stored, dict):
        assert isinstance(now, dict), path
        for key, value in stored.items():
            if not (key == "module" and stored.get("registered_name")):
                assert key in now, f"{path}/{key}"
                assert_still_there(value, now[key], f"{path}/{key}")
    elif isinstance(stored, list):
        assert isinstance(now, list), path
        assert len(now) == len(stored), path
        for number, (one, other) in enumerate(zip(stored, now, strict=True)):
            assert_still_there(one, other, f"{path}/{number}")
    else:
        assert now == stored, path
