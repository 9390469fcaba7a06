"""Class names and scores of videos or sounds."""
from __future__ import annotations

import os
from typing import Dict, Iterable, List, Optional, Sequence, Tuple, Union

import ctypes
import numpy as np

from . import _library as c
from ._handle import Handle, Path, ProgressCallback, array, frames_of, samples_of, settings_of, strings, text
from ._library import lib
from .errors import DataError


class Classifier(Handle):
    """A model that `xkd finetune` or `xkd linear` made: `Classifier("runs/mine").predict("clip.mp4")`.

    classes: the names, in the order of the scores
    modality: "video" or "audio"
    multi_label: each class has a separate probability; otherwise the scores sum to 1
    """

    _close, _error = lib.xkd_predictor_close, lib.xkd_predictor_error

    def __init__(self, model: Path, *, settings: Union[Dict[str, object], Sequence[str], None] = None,
                 progress: Optional[ProgressCallback] = None):
        super().__init__(progress)
        words = settings_of(settings)
        self._open(lib.xkd_predictor_open, os.fsencode(model), strings(words), len(words))
        info = lib.xkd_predictor_info(self._handle)
        self.classes: List[str] = [text(lib.xkd_predictor_class(self._handle, k)) for k in range(info.classes)]
        self.modality = ("video", "audio")[info.modality]
        self.multi_label = bool(info.multi_label)
        self.clip = tuple(info.clip)

    def scores(self, source: Optional[Path] = None, *, frames=None, samples=None) -> np.ndarray:
        """Scores [classes] of a file, or of frames or samples in memory as Encoder.embed takes them."""
        out = np.empty(len(self.classes), dtype=np.float32)
        with self._lock:
            if source is not None:
                self._run(lib.xkd_predictor_file, self._alive(), os.fsencode(source), out.ctypes.data)
            else:
                pictures, held_f = frames_of(frames) if frames is not None else (None, None)
                sound, held_s = samples_of(samples) if samples is not None else (None, None)
                self._run(lib.xkd_predictor_memory, self._alive(),
                          ctypes.byref(pictures) if pictures is not None else None,
                          ctypes.byref(sound) if sound is not None else None, out.ctypes.data)
                del held_f, held_s
        return out

    def predict(self, source: Optional[Path] = None, *, top: int = 5, frames=None, samples=None) -> List[Tuple[str, float]]:
        """The likeliest classes and their scores, best first."""
        return self._best(self.scores(source, frames=frames, samples=samples), top)

    def _best(self, scores: np.ndarray, top: int) -> List[Tuple[str, float]]:
        order = np.argsort(-scores, kind="stable")[:top]
        return [(self.classes[k], float(scores[k])) for k in order]

    def scores_many(self, sources: Iterable[Path], *, errors: str = "raise") -> np.ndarray:
        """Scores [files,classes]. The first file that cannot be read raises a DataError; with errors="none" its row is NaN."""
        if errors not in ("raise", "none"):
            raise ValueError(f"errors={errors!r}: 'raise' or 'none'")
        paths = [os.fsencode(s) for s in sources]
        out = np.full((len(paths), len(self.classes)), np.nan, dtype=np.float32)

        def take(index, scores, error):
            if scores:
                out[index] = array(scores, (len(self.classes),))
            elif errors == "raise":
                raise DataError(f"{os.fsdecode(paths[index])}: {text(error)}")

        sink = c.SCORES_SINK(lambda _user, index, scores, _clips, error: self._guard(take, index, scores, error))
        with self._lock:
            self._run(lib.xkd_predictor_files, self._alive(), strings(paths), len(paths), sink, None)
        return out

    def scores_clips(self, clips) -> np.ndarray:
        """Scores [count,classes] of prepared clips, float32 [count,C,T,H,W], each by itself."""
        clips = np.ascontiguousarray(clips, dtype=np.float32)
        if clips.shape[1:] != self.clip:
            raise ValueError(f"clips: want [count, {', '.join(map(str, self.clip))}], got {list(clips.shape)}")
        out = np.empty((clips.shape[0], len(self.classes)), dtype=np.float32)
        with self._lock:
            self._run(lib.xkd_predictor_clips, self._alive(), clips.ctypes.data, clips.shape[0], out.ctypes.data)
        return out
