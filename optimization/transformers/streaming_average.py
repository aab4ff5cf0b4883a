"""`StreamingAverage` of transformers."""

from optimization.schedules.followers import StreamingAverage

__all__ = ["StreamingAverage"]
