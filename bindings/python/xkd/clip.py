"""Frames and sound of media files, as training reads them."""
from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from . import _library as c
from ._handle import Handle, Path, ProgressCallback, array, settings_of, strings, text
from ._library import lib


@dataclass(frozen=True)
class Clip:
    """frames: uint8 [T,H,W,3] at `fps`; samples: float32 [N] at `sample_rate`; None if the file has no such stream there."""

    frames: Optional[np.ndarray]
    samples: Optional[np.ndarray]
    fps: float
    sample_rate: int
    start: float
    duration: float  # of the file


@dataclass(frozen=True)
class Views:
    """Augmented views, the global ones first: video [3,T,H,W], audio [1,mel bands,columns]; float32, normalised."""

    video: List[np.ndarray]
    audio: List[np.ndarray]


class Reader(Handle):
    """Reads clips of any file. settings: {"dataset.clip_duration": 2, ...}, as `xkd help options` lists them."""

    _close, _error = lib.xkd_reader_close, lib.xkd_reader_error

    def __init__(self, *, settings: Union[Dict[str, object], Sequence[str], None] = None,
                 progress: Optional[ProgressCallback] = None):
        super().__init__(progress)
        words = settings_of(settings)
        self._open(lib.xkd_reader_open, strings(words), len(words))

    def clip(self, source: Path, start: float = 0.0, *, copy: bool = True) -> Clip:
        """The clip that begins `start` seconds into the file. With copy=False the arrays are views of the reader's memory, which
        the next call overwrites and close() frees."""
        d = c.ClipData()
        with self._lock:
            self._run(lib.xkd_reader_clip, self._alive(), os.fsencode(source), start, ctypes.byref(d))
            frames = samples = None
            if d.frame_count:
                size = d.frame_count * d.height * d.width * 3
                frames = np.ctypeslib.as_array(d.frames, shape=(size,)).reshape(d.frame_count, d.height, d.width, 3)
                frames = frames.copy() if copy else frames
            if d.sample_count:
                samples = np.ctypeslib.as_array(d.samples, shape=(d.sample_count,))
                samples = samples.copy() if copy else samples
        return Clip(frames, samples, d.fps, d.sample_rate, d.start, d.duration)

    def _views(self, v: c.ClipViews) -> Views:
        def take(view, first):
            shape = tuple(view.shape)[first:]
            return array(view.data, shape).copy()

        return Views([take(v.video[k], 0) for k in range(v.count[0])], [take(v.audio[k], 1) for k in range(v.count[1])])

    def views(self, source: Path, start: float, *, seed: int = 0, epoch: int = 0, sample: int = 0) -> Views:
        """Augmented views of the clip at `start`. The draws depend only on (seed, epoch, sample)."""
        v = c.ClipViews()
        with self._lock:
            self._run(lib.xkd_reader_views, self._alive(), os.fsencode(source), start, seed, epoch, sample,
                                             ctypes.byref(v))
            return self._views(v)

    def training_views(self, source: Path, *, seed: int = 0, epoch: int = 0, sample: int = 0) -> Views:
        """The views that pre-training makes of sample number `sample` of its manifest, to the bit."""
        v = c.ClipViews()
        with self._lock:
            self._run(lib.xkd_reader_training_views, self._alive(), os.fsencode(source), seed, epoch, sample,
                                                      ctypes.byref(v))
            return self._views(v)


def read_clip(source: Path, start: float = 0.0, *,
              settings: Union[Dict[str, object], Sequence[str], None] = None) -> Clip:
    """One clip of one file. For many files keep a Reader, which keeps its decoder."""
    with Reader(settings=settings) as reader:
        return reader.clip(source, start)


@dataclass(frozen=True)
class ListedFile:
    """A line of a manifest. label is -1 if the file has none; labels are those of a file with several classes."""

    path: str
    split: str
    label: int
    labels: Tuple[int, ...]
    video_seconds: float
    audio_seconds: float


def list_files(source: Path, split: Optional[str] = None, *, follow_links: bool = False) -> Tuple[List[ListedFile], List[str]]:
    """Files and class names of a folder, or of a manifest that `xkd data index` wrote."""
    handle = Handle()
    try:
        listing = ctypes.c_void_p()
        status = lib.xkd_listing_open(handle._context, os.fsencode(source),
                                      split.encode() if split is not None else None, int(follow_links),
                                      ctypes.byref(listing))
        handle._check(status, opening=True)
        files = []
        for i in range(lib.xkd_listing_count(listing)):
            f = lib.xkd_listing_file(listing, i)
            labels = tuple(f.labels[k] for k in range(f.label_count)) if f.label_count else ()
            files.append(ListedFile(text(f.path), text(f.split), f.label, labels, f.video_seconds, f.audio_seconds))
        classes = [text(lib.xkd_listing_class(listing, k)) for k in range(lib.xkd_listing_class_count(listing))]
        lib.xkd_listing_close(listing)
        return files, classes
    finally:
        handle.close()
