"""Exceptions: one class for each status of the library, which are also the exit codes of the xkd program."""
from __future__ import annotations

__all__ = ["Error", "InternalError", "ConfigError", "DataError", "CheckpointError", "StorageError", "NumericError",
           "PeerError", "OutOfMemoryError", "DeviceError", "Preempted", "Interrupted"]


class Error(Exception):
    """Something failed. `status` is the library's code; the message names the file, the place and the remedy."""

    status = 1


class InternalError(Error):
    """A fault of the library: please report it."""

    status = 1


class ConfigError(Error, ValueError):
    """An option, a setting or an argument is wrong."""

    status = 2


class DataError(Error, ValueError):
    """A media file, a manifest or a data set cannot be used."""

    status = 3


class CheckpointError(Error, ValueError):
    """A model or tensor file was refused."""

    status = 4


class StorageError(Error, OSError):
    """Reading or writing a file failed."""

    status = 5


class NumericError(Error, ArithmeticError):
    """Numbers that are not finite."""

    status = 6


class PeerError(Error):
    """Another process of the run was lost."""

    status = 7


class OutOfMemoryError(Error, MemoryError):
    """Out of memory."""

    status = 8


class DeviceError(Error):
    """The device failed or is absent."""

    status = 9


class Preempted(Error):
    """A signal stopped a run, which is saved."""

    status = 75


class Interrupted(Error):
    """A progress callback stopped a call. A training is saved."""

    status = 130


_BY_STATUS = {c.status: c for c in (InternalError, ConfigError, DataError, CheckpointError, StorageError, NumericError,
                                    PeerError, OutOfMemoryError, DeviceError, Preempted, Interrupted)}


def error_of(status: int, message: str) -> Error:
    """The exception of a status, with the library's message."""
    return _BY_STATUS.get(status, InternalError)(message or f"status {status}")
