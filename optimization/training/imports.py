"""Imports: of what a user names, told in words where it fails, and of TensorFlow without noise."""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType

from optimization import extras
from optimization.training.errors import TrainingError
from optimization.training.signals import Stopped


def import_module(name: str) -> ModuleType:
    """Imports the module `name`, which registers what a config names.

    Raises:
        TrainingError: If there is no such module, or it fails; with the line at which it does.
    """
    if name.endswith(".py") or "/" in name:
        module = name.removesuffix(".py").strip("./").replace("/", ".")
        raise TrainingError(f"a module is imported by its name, such as {module}, not {name}")
    try:
        return importlib.import_module(name)
    except Stopped:
        raise
    except (Exception, SystemExit) as error:
        cause = extras.explained(error) if isinstance(error, ModuleNotFoundError) else error
        where = ""
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            where = f"; there is none in {os.getcwd()}, nor installed"
        raise TrainingError(f"{name} cannot be imported: {told(cause)}{where}") from error


def told(error: BaseException) -> str:
    """Returns the kind, the first line and the place of an error in code of the user's."""
    text = str(error).strip().partition("\n")[0]
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename not in _OWN_FILES and not f.filename.startswith("<")]
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {text}{place}"


_OWN_FILES = (__file__, importlib.__file__)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps what TensorFlow's libraries write while they load off the screen.

    They write it before they read TF_CPP_MIN_LOG_LEVEL, so the descriptor itself is turned aside;
    after an error all of it is shown. A user who has set the variable sees everything.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or "tensorflow" in sys.modules:
        yield
        return
    import tempfile  # of all that a command starts with, few need it

    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except Stopped:
            raise
        except BaseException:
            sys.stderr.flush()
            aside.seek(0)
            os.write(saved, aside.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            if "tensorflow" not in sys.modules:  # It is for the next block to be quiet.
                del os.environ["TF_CPP_MIN_LOG_LEVEL"]
