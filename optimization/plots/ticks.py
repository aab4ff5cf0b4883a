"""The numbers beside axes, and how numbers are written in pictures."""

import math

_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)


def limits(values: list[float], log: bool) -> tuple[float, float]:
    """Returns the lowest and the highest height of a picture of these values.

    >>> limits([0.2, 1.0], log=False), limits([0.9, 0.95], log=False)
    ((0.0, 1.0), (0.9, 0.95))
    """
    low, high = min(values), max(values)
    if log:
        return (low, high) if low < high else (low / 10, high * 10)
    if low == high or not low > high / 2:  # an axis that starts at 0, where that leaves room
        low = min(low, 0.0)
    return low, high if high > low else low + 1.0


def ticks(low: float, high: float, most: int, log: bool = False) -> list[float]:
    """Returns round numbers between two, at most `most` and a few if there are.

    >>> ticks(0, 100, 5), ticks(1e-5, 1e-3, 5, log=True)
    ([0.0, 25.0, 50.0, 75.0, 100.0], [1e-05, 0.0001, 0.001])
    """
    if log:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        every = max(1, math.ceil((last - first + 1) / most))
        decades = [float(f"1e{power}") for power in range(first, last + 1, every)]
        if len(decades) > 1:
            return decades
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(nice for nice in _NICE if nice * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    found = [float(f"{n * step:.12g}") for n in range(first, math.floor(high / step + 1e-9) + 1)]
    return [tick for tick in found if tick > 0] if log else found


def number(value: float) -> str:
    """Returns a value with the digits that a picture has room for.

    >>> number(0.00030000001), number(0.1), number(1234567.0)
    ('0.0003', '0.1', '1.235e+06')
    """
    text = f"{value:.4g}"
    mantissa, e, power = text.partition("e")
    return f"{mantissa}e{int(power)}" if e and value < 1 else text


def short_step(step: float) -> str:
    """Returns a number of steps in a few letters.

    >>> short_step(0), short_step(2500), short_step(1e6), short_step(999)
    ('0', '2.5k', '1M', '999')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(step) >= size:
            return f"{step / size:.6g}{letter}"
    return f"{step:.6g}"
