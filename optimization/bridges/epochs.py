"""Rates that change once an epoch, as timm's and Lightning's: as a type, else as a table."""

from collections.abc import Callable, Sequence
from typing import Any

from optimization.bridges.draft import Draft, Source
from optimization.configs.durations import TrainingLength
from optimization.configs.optimization_config import OptimizationConfig

MOST = 10_000
"""Epochs of which curves are compared."""
MOST_ROWS = 2_000
"""Epochs of which tables are written."""
_SPE = 100  # steps of an epoch, where curves are compared
_COMPARED = 100_000  # steps at most: of very many epochs, some of the steps of each


def check_rows(source: Source, key: str, epochs: int) -> None:
    """Refuses a table of more epochs than one may have, as what the value of a key comes to."""
    if epochs > MOST_ROWS:
        message = f"is a table of {epochs:,} epochs here; it can have {MOST_ROWS:,}"
        source.refuse(key, message)


def put_table(draft: Draft, rates: Sequence[float], comment: str) -> None:
    """Puts the rates of the epochs as the type `stepwise`, exact at each update."""
    starts = [e for e in range(1, len(rates)) if rates[e] != rates[e - 1]]
    if not starts:
        draft.put("learning_rate.type", "constant", comment)
        draft.put("learning_rate.constant.learning_rate", float(rates[0]))
        return
    draft.put("learning_rate.type", "stepwise", comment)
    place = "learning_rate.stepwise."
    put_boundaries(draft, starts, "the first epoch of each rate")
    draft.put(f"{place}values", [float(rates[0]), *(float(rates[e]) for e in starts)])


def put_boundaries(draft: Draft, epochs: Sequence[float], comment: str, ahead: int = 1) -> None:
    """Puts the epochs at whose first update, or `ahead` - 1 updates before, rates change."""
    place = "learning_rate.stepwise."
    draft.put(f"{place}boundaries", [f"{e:g} epochs" for e in epochs], comment)
    draft.put(f"{place}at_boundary", "new", "the first step of an epoch has its rate already")
    if ahead > 1:
        draft.put(f"{place}offset", 1 - ahead, "an update ahead")


def difference(
    draft: Draft, rate_at: Callable[[float], float], epochs: int, warmup: float = 0
) -> tuple[float, float]:
    """Returns by how much our curve differs at most, as shares of the highest rate.

    The first is that after the warmup, which takes `warmup` epochs, the other that in it. `rate_at`
    is the rate of the source by epochs done, as its training has it at that moment.
    """
    from optimization.schedules.compose import curve

    params: dict[str, Any] = {
        name: draft.values[name] for name in ("learning_rate", "warmup") if name in draft.values
    }
    config, _ = OptimizationConfig(params).sized(TrainingLength(epochs * _SPE, _SPE))
    stride = -(-epochs * _SPE // _COMPARED)
    steps = range(0, epochs * _SPE, stride)
    ours = curve(config.learning_rate.get(), config.warmup.get(), steps)
    theirs = [rate_at(step / _SPE) for step in steps]
    top = max(theirs) or 1.0
    off = [abs(a - b) / top for a, b in zip(ours, theirs, strict=True)]
    start = round(warmup * _SPE / stride)
    return max(off[start:], default=0.0), max(off[:start], default=0.0)


def percent(late: float, early: float = 0.0) -> str:
    """Returns two shares in words: two digits of their per cents.

    >>> percent(0.0123, 0.2)
    'by at most 1.2 % of the highest rate, and 20 % in the warmup'
    """
    text = f"by at most {100 * late:.2g} % of the highest rate"
    return f"{text}, and {100 * early:.2g} % in the warmup" if early > _NONE else text


_NONE = 1e-9
