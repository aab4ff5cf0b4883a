"""TensorBoard summaries, in which no step is there twice however often a run was killed."""

import contextlib
import itertools
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import tensorflow as tf
from google.protobuf.message import DecodeError

try:
    import fcntl
except ImportError:  # Windows, on which nothing keeps two processes apart
    fcntl = None  # type: ignore[assignment]

_START = "events.out.tfevents."
# TensorBoard reads whatever has "tfevents" in its name.
_UNFINISHED = "unfinished.tmp"
# Before the data of a record there are their length and its checksum, behind them their own.
_HEAD, _CHECK = struct.Struct("<Q4x"), 4


class SummaryWriter:
    """Writes scalars for TensorBoard to one directory, which is made when the first are written.

    A step that the directory has already, from this process or another, is written in its place.
    """

    def __init__(self, directory: str, writable: bool = True):
        self._directory = directory
        self._writable = writable
        self._file: _EventFile | None = None
        # The last step that the directory has; None where other processes may write there too.
        self._last: int | None = None

    def start(self, first: int) -> None:
        """Has this process alone write steps from `first` on.

        What a process that is dead wrote of these steps is removed, and what it left unfinished.
        """
        if self._writable:
            self._last = first - 1
            _remove(self._directory, lambda step: step >= first, torn=True)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Writes `values` as of `step`, through to the file."""
        if not self._writable:
            return
        if self._last is None or step <= self._last:
            _remove(self._directory, lambda other: other == step)
        else:
            self._last = step
        os.makedirs(self._directory, exist_ok=True)
        with _alone(self._directory):
            if self._file is None or not self._file.is_there():
                self._file = _EventFile(self._directory)
            self._file.write(_event(values, step))


def _event(values: Mapping[str, float], step: int) -> Any:
    """Returns what `tf.summary.scalar` writes of each value.

    That function needs the tensorboard package, which TensorFlow no longer installs.
    """
    event = tf.compat.v1.Event(wall_time=time.time(), step=step)
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    metadata.data_class = 1  # DATA_CLASS_SCALAR
    for name, value in values.items():
        tensor = tf.make_tensor_proto(value, tf.float32)
        event.summary.value.add(tag=name, tensor=tensor, metadata=metadata)
    return event


class _EventFile:
    """A file of events to which this process writes."""

    def __init__(self, directory: str):
        name = f"{_START}{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        paths = (os.path.join(directory, f"{name}.{number}.v2") for number in itertools.count())
        self._path = next(path for path in paths if not os.path.exists(path))
        self._writer = tf.io.TFRecordWriter(self._path)
        self.write(tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._inode = os.stat(self._path).st_ino

    def is_there(self) -> bool:
        """Whether it is still what is read; steps may have been removed since, in a copy."""
        try:
            return os.stat(self._path).st_ino == self._inode
        except FileNotFoundError:
            return False

    def write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()


@contextlib.contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Keeps other processes from writing to the directory inside; one that dies lets go."""
    handle = os.open(directory, os.O_RDONLY) if fcntl else None
    try:
        if handle is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _remove(directory: str, drops: Callable[[int], bool], torn: bool = False) -> None:
    """Removes summaries by their step, and ends that are `torn` off, from all files of events.

    Each file is replaced by a copy or not at all, whenever the process is killed.
    """
    if not os.path.isdir(directory):
        return
    with _alone(directory):
        for name in sorted(os.listdir(directory)):
            if name.startswith(_START):
                _remove_from(os.path.join(directory, name), drops, torn)
        if torn:
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(directory, _UNFINISHED))


def _remove_from(path: str, drops: Callable[[int], bool], torn: bool) -> None:
    def kept(record: bytes) -> bool:
        try:
            event = tf.compat.v1.Event.FromString(record[_HEAD.size : -_CHECK])
        except DecodeError:
            return True
        return not (event.HasField("summary") and drops(event.step))

    with open(path, "rb") as file:
        whole = all(kept(record) for record in _records(file))
        if whole and not (torn and file.tell() < os.path.getsize(path)):
            return
        file.seek(0)
        copy = os.path.join(os.path.dirname(path), _UNFINISHED)
        with open(copy, "wb") as target:
            target.writelines(record for record in _records(file) if kept(record))
            target.flush()
            os.fsync(target.fileno())
    os.replace(copy, path)


def _records(file: IO[bytes]) -> Iterator[bytes]:
    """Yields the records of a file as they are, and stays before one that is not whole."""
    size = os.fstat(file.fileno()).st_size
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        rest = _HEAD.unpack(head)[0] + _CHECK
        if rest > size - file.tell():
            break
        yield head + file.read(rest)
    file.seek(-len(head), os.SEEK_CUR)
