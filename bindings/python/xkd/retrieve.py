"""Search in a file of features."""
from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import List, Optional

import numpy as np

from . import _library as c
from ._handle import Handle, Path, text
from ._library import lib
from .encoder import MODALITIES


@dataclass(frozen=True)
class Match:
    """A clip that was found."""

    path: str
    seconds: float
    cosine: float


class Collection(Handle):
    """Features that `xkd embed` wrote, in memory: `Collection("features.safetensors").like("holiday.mp4")`."""

    _close, _error = lib.xkd_collection_close, lib.xkd_collection_error

    def __init__(self, path: Path, *, threads: int = 0):
        super().__init__()
        self._open(lib.xkd_collection_open, os.fsencode(path), threads)
        info = lib.xkd_collection_info(self._handle)
        self.files = [text(lib.xkd_collection_path(self._handle, i)) for i in range(info.files)]
        self.clips = {n: info.clips[m] for m, n in enumerate(MODALITIES)}
        self.width = {n: info.width[m] for m, n in enumerate(MODALITIES)}
        self.comparable = bool(info.comparable)

    def _default(self) -> str:
        return "video" if self.clips["video"] else "audio"

    def _matches(self, out, found: int) -> List[Match]:
        return [Match(text(m.path), m.seconds, m.cosine) for m in out[:found]]

    def search(self, query, *, against: Optional[str] = None, k: int = 10) -> List[Match]:
        """The k clips nearest to a feature [width] by cosine."""
        against = against or self._default()
        query = np.ascontiguousarray(query, dtype=np.float32)
        if query.shape != (self.width[against],):
            raise ValueError(f"query: want [{self.width[against]}], got {list(query.shape)}")
        out, found = (c.Match * max(k, 1))(), ctypes.c_int64()
        with self._lock:
            self._run(lib.xkd_collection_search, self._alive(), MODALITIES.index(against), query.ctypes.data, k, out,
                                                  ctypes.byref(found))
            return self._matches(out, found.value)

    def like(self, path: Path, *, query: Optional[str] = None, against: Optional[str] = None, k: int = 10) -> List[Match]:
        """The k clips nearest to a file of the collection, which is named as it is there."""
        query = query or self._default()
        against = against or query
        out, found = (c.Match * max(k, 1))(), ctypes.c_int64()
        with self._lock:
            self._run(lib.xkd_collection_like, self._alive(), os.fsencode(path), MODALITIES.index(query),
                                                MODALITIES.index(against), k, out, ctypes.byref(found))
            return self._matches(out, found.value)


def retrieve(features: Path, like: Path, *, query: Optional[str] = None, against: Optional[str] = None,
             k: int = 10) -> List[Match]:
    """The k clips of a file of features that are nearest to one of its files. For many searches keep a Collection."""
    with Collection(features) as collection:
        return collection.like(like, query=query, against=against, k=k)
