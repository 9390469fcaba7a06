"""Pre-training."""
from __future__ import annotations

import ctypes
import os
import signal
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Sequence, Union

from . import _library as c
from ._handle import DeferredInterrupt, Handle, Path, settings_of, text
from ._library import lib


@dataclass(frozen=True)
class RunResult:
    """What a call of pretrain did: all steps done so far, the steps of the whole schedule, and figures of the last step."""

    step: int
    total_steps: int
    bad_steps: int
    bad_clips: int
    parameters: int
    loss: float
    seconds: float
    samples_per_second: float


class _Settings(Handle):
    _close = lib.xkd_settings_free

    def __init__(self):
        super().__init__()
        self._error = lambda _handle: lib.xkd_last_error(self._context)
        self._open(lib.xkd_settings_new)


def pretrain(data: Path, out: Path, *, config: Optional[Path] = None, resume: bool = False, force: bool = False,
             settings: Union[Dict[str, object], Sequence[str], None] = None,
             progress: Optional[Callable[[str], Any]] = None) -> RunResult:
    """Trains in the run folder `out`, as `xkd pretrain` does. `progress` is called with a line of text after a step. Ctrl-C,
    and any exception of `progress`, ends the run after the current step, with everything saved. resume=True continues it.
    """
    pending, interrupt = [], DeferredInterrupt()

    def guarded(function, *arguments):
        try:
            function(*arguments)
        except BaseException as error:  # noqa: B902 KeyboardInterrupt too
            pending.append(error)

    @c.STOP_SIGNAL
    def stop_signal(_user):
        return signal.SIGINT if pending or interrupt.seen else 0  # asked once a step

    @c.PROGRESS_LINE
    def line(_user, value):
        if progress and value is not None:
            guarded(progress, text(value))

    run = _Settings()
    try:
        if config is not None:
            run._check(lib.xkd_settings_load(run._handle, os.fsencode(config)))
        for word in [f"data.path={os.fsdecode(data)}", f"run.out={os.fsdecode(out)}"] + settings_of(settings):
            run._check(lib.xkd_settings_set(run._handle, os.fsencode(word)))
        options = c.RunOptions(1 if resume else 2 if force else 0, stop_signal, line, None)
        result = c.RunResult()
        with interrupt:
            status = lib.xkd_pretrain(run._handle, ctypes.byref(options), ctypes.byref(result))
        if pending:
            raise pending[0]
        run._check(status)
        return RunResult(result.step, result.total_steps, result.bad_steps, result.bad_clips, result.parameters,
                         result.loss, result.seconds, result.samples_per_second)
    finally:
        run.close()
