"""Features of videos and sounds."""
from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Union

import numpy as np

from . import _library as c
from ._handle import Handle, Path, ProgressCallback, array, frames_of, samples_of, settings_of, strings, text
from ._library import lib
from .errors import DataError

MODALITIES = ("video", "audio")
_WANTED = {None: 0, "video": 1, "audio": 2, "both": 3}
_POOL = {None: 0, "mean": 1, "cls": 2, "none": 3, "head": 4}
_TAKE = {"windows": 0, "test": 1, "train": 2}


def _word(table: dict, value, name: str) -> int:
    if value not in table:
        raise ValueError(f"{name}={value!r}: want one of {', '.join(repr(k) for k in table)}")
    return table[value]


@dataclass(frozen=True)
class Features:
    """Features of one source. An array is None if the source has no such stream or if the encoder was not loaded.

    video, audio: float32 [clips,width], or [clips,tokens,width] with pool="none"
    video_seconds, audio_seconds: float64 [clips], where the clips begin
    """

    video: Optional[np.ndarray]
    audio: Optional[np.ndarray]
    video_seconds: Optional[np.ndarray]
    audio_seconds: Optional[np.ndarray]

    def __getitem__(self, modality: str) -> Optional[np.ndarray]:
        if modality not in MODALITIES:
            raise KeyError(modality)
        return getattr(self, modality)


@dataclass(frozen=True)
class Window:
    """One clip of a file: where it begins, and its features [width] (or [tokens,width]), or None past a stream's end."""

    index: int
    seconds: float
    video: Optional[np.ndarray]
    audio: Optional[np.ndarray]


@dataclass(frozen=True)
class EncoderInfo:
    """Shape, length and rate of the clips that an encoder takes, and rows and width of the features that it returns."""

    rows: int
    width: int
    clip: tuple  # C, T, H, W
    seconds: float
    rate: float
    hash: str


def _shape(rows: int, width: int) -> tuple:
    return (width,) if rows == 1 else (rows, width)


class Encoder(Handle):
    """A trained encoder, or two: `Encoder("runs/first").embed("clip.mp4").video`.

    model: run folder, or a model or encoder file that `xkd inspect` knows
    modality: "video", "audio" or "both"; None: what the model has
    pool: "mean" of the patches, "cls", "none" for all tokens, or "head" for the outputs of the projection head, the only
        space in which video and sound can be compared; None: as the model's configuration says
    take: "windows" over the whole file every `stride` seconds (default: a clip's length), "test" or "train": `clips` of a file
    settings: {"key.sub": value} over the model's own configuration, as `xkd help options` lists them
    progress: called as progress(what, done, total) while a call works; an exception that it raises ends the call
    """

    _close, _error = lib.xkd_embedder_close, lib.xkd_embedder_error

    def __init__(self, model: Path, *, modality: Optional[str] = None, audio_model: Optional[Path] = None,
                 config: Optional[Path] = None, student: bool = False, heads: int = 0, pool: Optional[str] = None,
                 layer: int = -1, take: str = "windows", clips: int = 0, stride: float = 0.0, batch: int = 8,
                 threads: int = 0, settings: Union[Dict[str, object], Sequence[str], None] = None,
                 progress: Optional[ProgressCallback] = None):
        super().__init__(progress)
        words = settings_of(settings)
        options = c.EmbedderOptions()
        lib.xkd_embedder_defaults(ctypes.byref(options))
        options.config = os.fsencode(config) if config is not None else None
        options.audio_model = os.fsencode(audio_model) if audio_model is not None else None
        options.wanted = _word(_WANTED, modality, "modality")
        options.student, options.heads, options.layer = int(student), heads, layer
        options.pool, options.take = _word(_POOL, pool, "pool"), _word(_TAKE, take, "take")
        options.clips, options.stride, options.batch, options.threads = clips, stride, batch, threads
        held = strings(words)
        options.settings, options.setting_count = held, len(words)
        self._open(lib.xkd_embedder_open, os.fsencode(model), ctypes.byref(options))
        self.info: Dict[str, EncoderInfo] = {}
        for m, name in enumerate(MODALITIES):
            info = lib.xkd_embedder_info(self._handle, m)
            if info.present:
                self.info[name] = EncoderInfo(info.rows, info.width, tuple(info.clip), info.seconds, info.rate,
                                              info.hash.decode())

    # ---- results ----

    def _features(self, f: c.Features) -> Features:
        rows: List[Optional[np.ndarray]] = [None, None]
        seconds: List[Optional[np.ndarray]] = [None, None]
        for m in range(2):
            if f.count[m]:
                shape = (f.count[m],) + _shape(f.rows[m], f.width[m])
                rows[m] = array(f.row[m], shape).copy()
                seconds[m] = np.ctypeslib.as_array(f.seconds[m], shape=(f.count[m],)).copy()
        return Features(rows[0], rows[1], seconds[0], seconds[1])

    # ---- calls ----

    def embed(self, source: Optional[Path] = None, *, frames=None, samples=None) -> Features:
        """Features of a file, or of arrays: frames (uint8 [T,H,W,3], at the model's rate) and samples (float32 [N] in [-1,1],
        mono). The arrays are read in place, whatever their strides."""
        f = c.Features()
        with self._lock:
            handle = self._alive()
            if source is not None:
                if frames is not None or samples is not None:
                    raise ValueError("embed: a file, or frames and samples")
                self._run(lib.xkd_embedder_file, handle, os.fsencode(source), ctypes.byref(f))
            else:
                pictures, held_f = frames_of(frames) if frames is not None else (None, None)
                sound, held_s = samples_of(samples) if samples is not None else (None, None)
                self._run(lib.xkd_embedder_memory, handle, ctypes.byref(pictures) if pictures is not None else None,
                          ctypes.byref(sound) if sound is not None else None, ctypes.byref(f))
                del held_f, held_s
            return self._features(f)

    def embed_many(self, sources: Iterable[Path], *, errors: str = "raise") -> List[Optional[Features]]:
        """Features of files, in their order. Clips of different files share batches. With errors="raise" the first file that
        cannot be read raises a DataError. With "none" its place has None, and the log "xkd" has a warning."""
        if errors not in ("raise", "none"):
            raise ValueError(f"errors={errors!r}: 'raise' or 'none'")
        paths = [os.fsencode(s) for s in sources]
        result: List[Optional[Features]] = [None] * len(paths)

        def take(index, features, error):
            if features:
                result[index] = self._features(features.contents)
            elif errors == "raise":
                raise DataError(f"{os.fsdecode(paths[index])}: {text(error)}")
            else:
                from ._handle import _log
                _log.warning("%s: %s", os.fsdecode(paths[index]), text(error))

        sink = c.FEATURES_SINK(lambda _user, index, f, error: self._guard(take, index, f, error))
        with self._lock:
            self._run(lib.xkd_embedder_files, self._alive(), strings(paths), len(paths), sink, None)
        return result

    def embed_clips(self, modality: str, clips, out: Optional[np.ndarray] = None) -> np.ndarray:
        """Features of prepared clips: float32 [count,C,T,H,W] of the shape info[modality].clip, normalised as in training.
        Contiguous clips are read in place. If `out` is given, the result is written into it."""
        if modality not in self.info:
            raise ValueError(f"{modality!r}: this encoder has {', '.join(self.info)}")
        info = self.info[modality]
        clips = np.ascontiguousarray(clips, dtype=np.float32)
        if clips.shape[1:] != tuple(info.clip):
            raise ValueError(f"clips: want [count, {', '.join(map(str, info.clip))}], got {list(clips.shape)}")
        shape = (clips.shape[0],) + _shape(info.rows, info.width)
        if out is None:
            out = np.empty(shape, dtype=np.float32)
        if out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous or not out.flags.writeable:
            raise ValueError(f"out: want a contiguous float32 array {list(shape)}")
        with self._lock:
            self._run(lib.xkd_embedder_clips, self._alive(), MODALITIES.index(modality), clips.ctypes.data,
                                               clips.shape[0], out.ctypes.data)
        return out

    def windows(self, source: Path) -> Iterator[Window]:
        """The clips of a file one after the other, while the rest of the file is still being decoded. The encoder can do nothing
        else until the iterator is used up or closed."""
        with self._lock:
            handle = ctypes.c_void_p()
            self._run(lib.xkd_embedder_windows, self._alive(), os.fsencode(source), ctypes.byref(handle))
        return self._windows(handle)

    def _windows(self, handle) -> Iterator[Window]:
        window, more = c.Window(), ctypes.c_int(1)
        shapes = [_shape(self.info[n].rows, self.info[n].width) if n in self.info else None for n in MODALITIES]
        try:
            while True:
                with self._lock:
                    self._alive()
                    self._run(lib.xkd_windows_next, handle, ctypes.byref(window), ctypes.byref(more))
                    if not more.value:
                        return
                    rows = [array(window.row[m], shapes[m]).copy() if window.row[m] else None for m in range(2)]
                yield Window(window.index, window.seconds, rows[0], rows[1])
        finally:
            with self._lock:
                if self._handle is not None:
                    lib.xkd_windows_close(handle)

    # ---- for other frameworks ----

    def geometry(self, modality: str) -> c.EncoderGeometry:
        """Sizes of the network, for programs that rebuild it."""
        with self._lock:
            return lib.xkd_embedder_geometry(self._alive(), MODALITIES.index(modality))

    def weights(self, modality: str) -> Dict[str, np.ndarray]:
        """Copies of the encoder's tensors by public name."""
        weight = c.Weight()
        result: Dict[str, np.ndarray] = {}
        with self._lock:
            while lib.xkd_embedder_weight(self._alive(), MODALITIES.index(modality), len(result),
                                          ctypes.byref(weight)) == 0:
                shape = tuple(weight.shape[:weight.dims])
                result[weight.name.decode()] = array(weight.data, shape).copy()
            if not result:
                self._run(lib.xkd_embedder_weight, self._alive(), MODALITIES.index(modality), 0, ctypes.byref(weight))
        return result
