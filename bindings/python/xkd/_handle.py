"""What all handles share: a context, exceptions, logging, Ctrl-C, and one call at a time."""
from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
from typing import Any, Callable, Optional, Sequence, Union

import numpy as np

from . import _library as c
from ._library import lib
from .errors import error_of

Path = Union[str, bytes, "os.PathLike[str]"]
ProgressCallback = Callable[[str, int, int], Any]

_log = logging.getLogger("xkd")
_LEVELS = {0: logging.ERROR, 1: logging.WARNING, 2: logging.INFO, 3: logging.DEBUG}


@c.LOG_SINK
def _to_logging(_user, level, line):
    _log.log(_LEVELS.get(level, logging.INFO), "%s", line.decode("utf-8", "replace"))


def text(value: Optional[bytes]) -> str:
    """A string of the library's; names that are not UTF-8 keep their bytes, as os.fsdecode has them."""
    return os.fsdecode(value) if value is not None else ""


def strings(values: Sequence[Union[str, bytes]]):
    """An array of C strings."""
    return (ctypes.c_char_p * max(len(values), 1))(*[os.fsencode(v) for v in values])


def settings_of(settings) -> list:
    """{"a.b": 1} or ["a.b=1"] as the library's words."""
    if not settings:
        return []
    if isinstance(settings, dict):
        return [f"{k}={_word(v)}" for k, v in settings.items()]
    return list(settings)


def _word(value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_word(v) for v in value) + "]"
    return str(value)


def array(pointer, shape) -> np.ndarray:
    """The library's memory as an array; valid as long as the library says."""
    count = int(np.prod(shape))
    if count == 0 or not pointer:
        return np.empty(shape, dtype=np.float32)
    return np.ctypeslib.as_array(pointer, shape=(count,)).reshape(shape)


def frames_of(frames) -> "tuple[c.Frames, Any]":
    """[T,H,W,3 or 4] uint8, where it is and with its strides."""
    a = np.asarray(frames)
    if a.ndim != 4 or a.shape[3] not in (3, 4) or a.dtype != np.uint8:
        raise ValueError(f"frames: want uint8 [frames,height,width,3], got {a.dtype} {list(a.shape)}")
    if a.strides[3] != 1 or 0 in a.strides:
        a = np.ascontiguousarray(a)
    t, h, w, _ = a.shape
    return c.Frames(a.ctypes.data, t, h, w, a.strides[0], a.strides[1], a.strides[2]), a


def samples_of(samples) -> "tuple[c.Samples, Any]":
    """[N] float32 in [-1,1] (integers are scaled), where it is and with its stride."""
    a = np.asarray(samples)
    if a.ndim != 1:
        raise ValueError(f"samples: want mono [samples], got {list(a.shape)}")
    if a.dtype == np.int16:
        a = a.astype(np.float32) / np.float32(32767)
    elif a.dtype.kind != "f":
        raise ValueError(f"samples: want float32 in [-1,1] or int16, got {a.dtype}")
    if a.dtype != np.float32 or a.strides[0] % 4 or a.strides[0] == 0:
        a = np.ascontiguousarray(a, dtype=np.float32)
    return c.Samples(a.ctypes.data, a.shape[0], a.strides[0] // 4), a


class DeferredInterrupt:
    """Holds Ctrl-C back while the library works. Python would raise KeyboardInterrupt wherever Python code runs next, which may be
    the very first instruction of a callback, where nothing can catch it. The callbacks look at `seen` and end the call; then the
    exception is raised. Another handler than Python's own is left alone."""

    def __init__(self):
        self.seen = False
        self._held = False

    def _note(self, _number, _frame):
        self.seen = True

    def __enter__(self):
        if threading.current_thread() is threading.main_thread() and \
                signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._held = True
        return self

    def __exit__(self, *_):
        if self._held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.seen:
            raise KeyboardInterrupt


class Handle:
    """A handle of the library with a context of its own. Calls from several threads wait for one another; two handles work
    side by side. While a call works other Python threads run, and Ctrl-C ends it."""

    _close: Any = None  # functions of the library
    _error: Any = None
    _handle: Optional[ctypes.c_void_p] = None
    _context: Optional[ctypes.c_void_p] = None

    def __init__(self, progress: Optional[ProgressCallback] = None):
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._pending: Optional[BaseException] = None
        self._interrupt: Optional[DeferredInterrupt] = None
        self._progress = progress
        self._context = lib.xkd_context_new()
        if not self._context:
            raise MemoryError("xkd: out of memory")
        self._sink = c.PROGRESS_SINK(self._on_progress)  # kept alive: the library holds a pointer
        lib.xkd_context_set_log(self._context, _to_logging, None, 1)
        lib.xkd_context_set_progress(self._context, self._sink, None)

    def _on_progress(self, _user, progress):
        # Python's handlers of signals run here, in the main thread; an exception ends the call and is raised after it.
        try:
            if self._interrupt is not None and self._interrupt.seen:
                return 1
            if self._progress:
                p = progress.contents
                self._progress(p.what.decode(), p.done, p.total)
            return 0
        except BaseException as error:  # noqa: B902 KeyboardInterrupt too
            self._pending = error
            return 1

    def _guard(self, function, *arguments):
        """A callback whose exception ends the call."""
        try:
            function(*arguments)
            return 0
        except BaseException as error:  # noqa: B902
            self._pending = error
            return 1

    def _run(self, function, *arguments) -> None:
        """A call that may take long. What it returns is checked."""
        with DeferredInterrupt() as self._interrupt:
            status = function(*arguments)
        self._check(status)

    def _check(self, status: int, opening: bool = False) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            lib.xkd_clear_error(self._context)
            raise pending
        if status == 0:
            return
        message = text(lib.xkd_last_error(self._context) if opening else self._error(self._handle))
        lib.xkd_clear_error(self._context)
        raise error_of(status, message)

    def _open(self, function, *arguments) -> None:
        handle = ctypes.c_void_p()
        status = function(self._context, *arguments, ctypes.byref(handle))  # loads a model; nothing that could be stopped
        self._handle = handle if handle.value else None
        try:
            self._check(status, opening=True)
        except BaseException:
            self.close()
            raise

    def _alive(self):
        if self._handle is None:
            raise ValueError(f"{type(self).__name__} is closed")
        if self._process != os.getpid():
            raise ValueError(f"{type(self).__name__} was opened in another process: open one after the fork")
        return self._handle

    def close(self) -> None:
        """Gives memory and processes back. The object cannot be used any more; closing it again does nothing."""
        lock = getattr(self, "_lock", None)
        if lock is None:
            return
        if self._process != os.getpid():  # a fork: the threads behind the handle are the parent's
            self._handle = self._context = None
            return
        with lock:
            if self._handle is not None:
                type(self)._close(self._handle)
            self._handle = None
            if self._context is not None:
                lib.xkd_context_free(self._context)
            self._context = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        try:
            self.close()
        except Exception:  # the interpreter is going down
            pass
