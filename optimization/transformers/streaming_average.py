"""`StreamingAverage` of transformers."""

from optimization.schedules.streaming_average import StreamingAverage

__all__ = ["StreamingAverage"]
