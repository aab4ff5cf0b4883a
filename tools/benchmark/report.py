"""The results as tables and as JSON."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tools.benchmark.contestants import CONTESTANTS
from tools.benchmark.floor import BYTES
from tools.benchmark.lists import parameters
from tools.benchmark.turns import Result
from tools.benchmark.variants import VARIANTS

Row = Sequence[Any]
Key = tuple[str, str, str]


def as_json(facts: dict[str, Any], results: Sequence[Result]) -> str:
    """Returns everything that was measured."""
    records = [dataclasses.asdict(result) | _derived(result, results) for result in results]
    return json.dumps({"facts": facts, "results": _finite(records)}, indent=1) + "\n"


def _derived(result: Result, results: Sequence[Result]) -> dict[str, Any]:
    if result.skipped is not None:
        return {}
    best = best_peer(result, results)
    return {
        "median_milliseconds": result.median,
        "least_milliseconds": min(result.milliseconds),
        "to_add": result.to_add,
        "to_bytes": result.to_bytes,
        "best_peer": best and best.contestant,
        "to_best_peer": best and best.to_add / result.to_add,
    }


def _finite(value: Any) -> Any:
    """Replaces infinities, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def best_peer(result: Result, results: Iterable[Result]) -> Result | None:
    """Returns the fastest of the others that did the same, measured by `a += b`; None for none."""
    peers = [
        other
        for other in results
        if other.skipped is None
        and other.agrees
        and not CONTESTANTS[other.contestant].ours
        and other.contestant != result.contestant
        and (other.parameter_list, other.variant) == (result.parameter_list, result.variant)
    ]
    return min(peers, key=lambda peer: peer.to_add, default=None)


def markdown(facts: dict[str, Any], results: Sequence[Result], details: bool = True) -> str:
    """Returns the facts and the tables, those of single updates too if `details`."""
    lists = list(dict.fromkeys(result.parameter_list for result in results))
    variants = list(dict.fromkeys(result.variant for result in results))
    parts = [_facts(facts), _traffic(variants)]
    for name in lists:
        of_list = [result for result in results if result.parameter_list == name]
        tensors = parameters(name, facts["quick"])
        size = sum(tensor.size for tensor in tensors)
        parts.append(f"### {name}: {len(tensors):,} tensors, {size / 1e6:.1f} M parameters")
        if not details:  # on the page, beside whose folder of figures the charts are
            parts.append(f"![multiples of `a += b`](performance/{name}.png)")
        parts += [_summary(of_list, ours, title) for ours, title in _OURS.items()]
        if details:
            parts += [_details(v, [r for r in of_list if r.variant == v]) for v in variants]
    rows = comparisons(results)
    if rows:
        parts.append("### Ours beside ours")
        parts.append(table(("update", "", "ratio"), rows))
    return "\n\n".join(filter(None, parts)) + "\n"


def _facts(facts: dict[str, Any]) -> str:
    lines = [f"- {name}: {facts[name]}" for name in ("date", "processor", "cores", "memory")]
    lines.append(f"- rounds: {facts['rounds']}, sources: {facts['sources']}")
    if facts["quick"]:
        lines.append("- **`--quick`: small lists, no figures to quote**")
    for name, versions in facts["versions"].items():
        text = ", ".join(f"{package} {version}" for package, version in versions.items())
        lines.append(f"- `{name}`: {CONTESTANTS[name].what} ({text})")
    lines += [f"- without `{name}`: {_brief(why)}" for name, why in facts["left out"].items()]
    return "\n".join(lines)


def _traffic(variants: Sequence[str]) -> str:
    rows = [(v, VARIANTS[v].bytes_per_parameter, VARIANTS[v].traffic()) for v in variants]
    rows.insert(0, ("`a += b`", BYTES, "read a b, write a"))
    return table(("update", "bytes per parameter", "least traffic"), rows)


_OURS = {
    "ours": "This project on TensorFlow, beside all others",
    "ours-torch": "Natively on PyTorch, beside others on PyTorch",
    "ours-jax": "Natively on JAX, beside optax",
}
_ANY_FRAMEWORK = "ours"


def _framework(contestant: str) -> str:
    return CONTESTANTS[contestant].target.partition(":")[0]


def _summary(results: Sequence[Result], ours: str, title: str) -> str:
    rows = []
    for result in results:
        if result.contestant != ours or result.skipped is not None:
            continue
        peers = [
            other
            for other in results
            if ours == _ANY_FRAMEWORK or _framework(other.contestant) == _framework(ours)
        ]
        best = best_peer(result, peers)
        row = [result.variant, *_speed(result)]
        if best is None:
            row += ["", "", ""]
        else:
            times = f"{best.to_add / result.to_add:.2f}"
            row += [best.contestant, f"{best.median:.1f}", f"**{times}**"]
        rows.append(row)
    if not rows:
        return ""
    head = ("update", *_SPEED, "best peer", "its ms", "times as fast")
    return f"{title}:\n\n{table(head, rows)}"


_SPEED = ("ms, median", "least", "x `a += b`", "x own bytes")


def _speed(result: Result) -> list[str]:
    return [
        f"{result.median:.1f}",
        f"{min(result.milliseconds):.1f}",
        f"{result.to_add:.2f}",
        f"{result.to_bytes:.2f}",
    ]


def _details(variant: str, results: Sequence[Result]) -> str:
    done = [result for result in results if result.skipped is None]
    rows = []
    for result in sorted(done, key=lambda result: result.to_add):
        best = best_peer(result, results)
        figures = result.figures
        rows.append(
            [
                result.contestant,
                *_speed(result),
                "" if best is None else f"{best.to_add / result.to_add:.2f}",
                f"{figures['first_step_seconds']:.2f}",
                _seconds(figures["first_step_seconds_of_the_loop"]),
                _mebibytes(figures["state_bytes"]),
                _mebibytes(figures["peak_bytes"]),
                _mebibytes(figures["temporary_bytes"]),
                f"{result.difference:.0e}" + ("" if result.agrees else " **differs**"),
            ]
        )
    head = (
        "contestant",
        *_SPEED,
        "x best other peer",
        "first step, s",
        "of the loop",
        "state, MiB",
        "peak, MiB",
        "temporaries, MiB",
        "difference",
    )
    lines = [f"#### {variant}", table(head, rows)]
    skipped = [r for r in results if r.skipped is not None]
    if skipped:
        lines.append("\n".join(f"- {r.contestant}: {_brief(r.skipped)}" for r in skipped))
    return "\n\n".join(lines)


def comparisons(results: Sequence[Result]) -> list[Row]:
    """Returns what follows from two results of ours: the update, the question, the ratio."""
    done = {
        (result.contestant, result.parameter_list, result.variant): result
        for result in results
        if result.skipped is None
    }
    lists = dict.fromkeys(result.parameter_list for result in results)
    variants = dict.fromkeys(result.variant for result in results)
    rows = []

    def compare(title: str, first: Key, second: Key, measure: Callable[[Result], float]) -> None:
        if first in done and second in done:
            ratio = measure(done[first]) / measure(done[second])
            rows.append((first[2], title, f"{ratio:.3g}"))

    for variant in variants:
        title = "time of `tiny` over `tiny_in_199`, the same bytes"
        keys = ("ours", "tiny", variant), ("ours", "tiny_in_199", variant)
        compare(title, *keys, lambda result: result.to_add)
        for name in lists:
            title = f"time of two devices over one, each with `{name}`, for as many bytes in all"
            keys = ("ours-2-devices", name, variant), ("ours", name, variant)
            compare(title, *keys, _for_all_bytes)
    for name in lists:
        title = f"bytes of state over `adamw`'s, `{name}`"
        keys = ("ours", name, "adafactor"), ("ours", name, "adamw")
        compare(title, *keys, lambda result: result.figures["state_bytes"])
    return rows


def _for_all_bytes(result: Result) -> float:
    # Two devices of one machine hold all tensors twice, and share the way to the memory.
    return result.to_add / (2 if result.contestant == "ours-2-devices" else 1)


def _mebibytes(number: float | None) -> str:
    return "" if number is None else f"{number / 2**20:,.1f}"


def _seconds(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def _brief(reason: str) -> str:
    return reason.strip().splitlines()[0]


def table(head: Row, rows: Iterable[Row]) -> str:
    """Returns a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
