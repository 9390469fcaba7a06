"""libxkd: where it is, and its functions and structures as include/xkd declares them."""
from __future__ import annotations

import ctypes
import ctypes.util
import os
from ctypes import (CFUNCTYPE, POINTER, Structure, c_char, c_char_p, c_double, c_float, c_int, c_int16, c_int32,
                    c_int64, c_uint8, c_uint32, c_uint64, c_void_p)

VIDEO, AUDIO = 0, 1
PAIR = c_int64 * 2

LOG_SINK = CFUNCTYPE(None, c_void_p, c_int, c_char_p)


class Progress(Structure):
    _fields_ = [("what", c_char_p), ("done", c_int64), ("total", c_int64)]


PROGRESS_SINK = CFUNCTYPE(c_int, c_void_p, POINTER(Progress))


class Frames(Structure):
    _fields_ = [("data", c_void_p), ("count", c_int64), ("height", c_int64), ("width", c_int64),
                ("frame_stride", c_int64), ("row_stride", c_int64), ("pixel_stride", c_int64)]


class Samples(Structure):
    _fields_ = [("data", c_void_p), ("count", c_int64), ("stride", c_int64)]


class ClipData(Structure):
    _fields_ = [("frames", POINTER(c_uint8)), ("frame_count", c_int64), ("height", c_int64), ("width", c_int64),
                ("samples", POINTER(c_float)), ("sample_count", c_int64), ("fps", c_double), ("sample_rate", c_int64),
                ("start", c_double), ("duration", c_double)]


class View(Structure):
    _fields_ = [("data", POINTER(c_float)), ("shape", c_int64 * 4)]


class ClipViews(Structure):
    _fields_ = [("count", PAIR), ("video", View * 16), ("audio", View * 16)]


class ListedFile(Structure):
    _fields_ = [("path", c_char_p), ("split", c_char_p), ("label", c_int64), ("labels", POINTER(c_int32)),
                ("label_count", c_int64), ("video_seconds", c_double), ("audio_seconds", c_double)]


class EmbedderOptions(Structure):
    _fields_ = [("config", c_char_p), ("audio_model", c_char_p), ("wanted", c_int), ("student", c_int),
                ("heads", c_int64), ("pool", c_int), ("layer", c_int64), ("take", c_int), ("clips", c_int64),
                ("stride", c_double), ("batch", c_int64), ("threads", c_int64), ("settings", POINTER(c_char_p)),
                ("setting_count", c_int64)]


class EncoderInfo(Structure):
    _fields_ = [("present", c_int), ("rows", c_int64), ("width", c_int64), ("clip", c_int64 * 4),
                ("seconds", c_double), ("rate", c_double), ("hash", c_char * 48)]


class EncoderGeometry(Structure):
    _fields_ = [("width", c_int64), ("depth", c_int64), ("heads", c_int64), ("channels", c_int64),
                ("patch", c_int64 * 3), ("grid", c_int64 * 3), ("cls_token", c_int)]


class Weight(Structure):
    _fields_ = [("name", c_char_p), ("data", POINTER(c_float)), ("dims", c_int64), ("shape", c_int64 * 4)]


class Features(Structure):
    _fields_ = [("count", PAIR), ("rows", PAIR), ("width", PAIR), ("row", POINTER(c_float) * 2),
                ("seconds", POINTER(c_double) * 2)]


class Window(Structure):
    _fields_ = [("index", c_int64), ("seconds", c_double), ("row", POINTER(c_float) * 2)]


class PredictorDescription(Structure):
    _fields_ = [("modality", c_int), ("classes", c_int64), ("multi_label", c_int), ("clip", c_int64 * 4),
                ("seconds", c_double), ("rate", c_double), ("hash", c_char * 48)]


class CollectionDescription(Structure):
    _fields_ = [("files", c_int64), ("clips", PAIR), ("width", PAIR), ("comparable", c_int),
                ("model", (c_char * 48) * 2)]


class Match(Structure):
    _fields_ = [("path", c_char_p), ("file", c_int64), ("seconds", c_double), ("cosine", c_double)]


STOP_SIGNAL = CFUNCTYPE(c_int, c_void_p)
PROGRESS_LINE = CFUNCTYPE(None, c_void_p, c_char_p)


class RunOptions(Structure):
    _fields_ = [("mode", c_int), ("stop_signal", STOP_SIGNAL), ("progress", PROGRESS_LINE), ("user", c_void_p)]


class RunResult(Structure):
    _fields_ = [("step", c_int64), ("total_steps", c_int64), ("bad_steps", c_int64), ("bad_clips", c_int64),
                ("parameters", c_int64), ("loss", c_double), ("seconds", c_double), ("samples_per_second", c_double),
                ("data_share", c_double)]


FEATURES_SINK = CFUNCTYPE(c_int, c_void_p, c_int64, POINTER(Features), c_char_p)
SCORES_SINK = CFUNCTYPE(c_int, c_void_p, c_int64, POINTER(c_float), c_int64, c_char_p)

# Which C structure is which here, for the test that compares their layouts.
STRUCTURES = {"xkd_progress": Progress, "xkd_frames": Frames, "xkd_samples": Samples, "xkd_clip_data": ClipData,
              "xkd_clip_views": ClipViews, "xkd_listed_file": ListedFile, "xkd_embedder_options": EmbedderOptions,
              "xkd_encoder_info": EncoderInfo, "xkd_encoder_geometry": EncoderGeometry, "xkd_weight": Weight,
              "xkd_features": Features, "xkd_window": Window, "xkd_predictor_description": PredictorDescription,
              "xkd_collection_description": CollectionDescription, "xkd_match": Match, "xkd_run_options": RunOptions,
              "xkd_run_result": RunResult}

P = c_void_p  # opaque handles
S = POINTER(c_char_p)
FUNCTIONS = {
    "xkd_version": (c_char_p, []),
    "xkd_context_new": (P, []),
    "xkd_context_free": (None, [P]),
    "xkd_context_set_log": (None, [P, LOG_SINK, c_void_p, c_int]),
    "xkd_context_set_progress": (None, [P, PROGRESS_SINK, c_void_p]),
    "xkd_last_error": (c_char_p, [P]),
    "xkd_clear_error": (None, [P]),
    "xkd_reader_open": (c_int, [P, S, c_int64, POINTER(P)]),
    "xkd_reader_close": (None, [P]),
    "xkd_reader_error": (c_char_p, [P]),
    "xkd_reader_clip": (c_int, [P, c_char_p, c_double, POINTER(ClipData)]),
    "xkd_reader_views": (c_int, [P, c_char_p, c_double, c_uint64, c_uint32, c_uint32, POINTER(ClipViews)]),
    "xkd_reader_training_views": (c_int, [P, c_char_p, c_uint64, c_uint32, c_uint32, POINTER(ClipViews)]),
    "xkd_listing_open": (c_int, [P, c_char_p, c_char_p, c_int, POINTER(P)]),
    "xkd_listing_close": (None, [P]),
    "xkd_listing_count": (c_int64, [P]),
    "xkd_listing_file": (ListedFile, [P, c_int64]),
    "xkd_listing_class_count": (c_int64, [P]),
    "xkd_listing_class": (c_char_p, [P, c_int64]),
    "xkd_embedder_defaults": (None, [POINTER(EmbedderOptions)]),
    "xkd_embedder_open": (c_int, [P, c_char_p, POINTER(EmbedderOptions), POINTER(P)]),
    "xkd_embedder_close": (None, [P]),
    "xkd_embedder_error": (c_char_p, [P]),
    "xkd_embedder_info": (EncoderInfo, [P, c_int]),
    "xkd_embedder_geometry": (EncoderGeometry, [P, c_int]),
    "xkd_embedder_weight": (c_int, [P, c_int, c_int64, POINTER(Weight)]),
    "xkd_embedder_file": (c_int, [P, c_char_p, POINTER(Features)]),
    "xkd_embedder_memory": (c_int, [P, POINTER(Frames), POINTER(Samples), POINTER(Features)]),
    "xkd_embedder_clips": (c_int, [P, c_int, c_void_p, c_int64, c_void_p]),
    "xkd_embedder_files": (c_int, [P, S, c_int64, FEATURES_SINK, c_void_p]),
    "xkd_embedder_windows": (c_int, [P, c_char_p, POINTER(P)]),
    "xkd_windows_next": (c_int, [P, POINTER(Window), POINTER(c_int)]),
    "xkd_windows_close": (None, [P]),
    "xkd_predictor_open": (c_int, [P, c_char_p, S, c_int64, POINTER(P)]),
    "xkd_predictor_close": (None, [P]),
    "xkd_predictor_error": (c_char_p, [P]),
    "xkd_predictor_info": (PredictorDescription, [P]),
    "xkd_predictor_class": (c_char_p, [P, c_int64]),
    "xkd_predictor_file": (c_int, [P, c_char_p, c_void_p]),
    "xkd_predictor_memory": (c_int, [P, POINTER(Frames), POINTER(Samples), c_void_p]),
    "xkd_predictor_clips": (c_int, [P, c_void_p, c_int64, c_void_p]),
    "xkd_predictor_files": (c_int, [P, S, c_int64, SCORES_SINK, c_void_p]),
    "xkd_collection_open": (c_int, [P, c_char_p, c_int64, POINTER(P)]),
    "xkd_collection_close": (None, [P]),
    "xkd_collection_error": (c_char_p, [P]),
    "xkd_collection_info": (CollectionDescription, [P]),
    "xkd_collection_path": (c_char_p, [P, c_int64]),
    "xkd_collection_search": (c_int, [P, c_int, c_void_p, c_int64, POINTER(Match), POINTER(c_int64)]),
    "xkd_collection_like": (c_int, [P, c_char_p, c_int, c_int, c_int64, POINTER(Match), POINTER(c_int64)]),
    "xkd_settings_new": (c_int, [P, POINTER(P)]),
    "xkd_settings_free": (None, [P]),
    "xkd_settings_load": (c_int, [P, c_char_p]),
    "xkd_settings_set": (c_int, [P, c_char_p]),
    "xkd_pretrain": (c_int, [P, POINTER(RunOptions), POINTER(RunResult)]),
}


def _candidates():
    """$XKD_LIBRARY alone, else inside the package, the build folder of a clone, and where the loader looks."""
    given = os.environ.get("XKD_LIBRARY")
    if given:
        yield given
        return
    here = os.path.dirname(os.path.abspath(__file__))
    yield os.path.join(here, "libxkd.so.0")
    yield os.path.join(here, "..", "..", "..", "build", "libxkd.so.0")
    yield "libxkd.so.0"
    for folder in ("/usr/local/lib", "/usr/lib"):
        yield os.path.join(folder, "libxkd.so.0")


def _load() -> ctypes.CDLL:
    reasons = []
    for path in _candidates():
        if os.path.isabs(path) and not os.path.exists(path):
            continue
        try:
            library = ctypes.CDLL(path)
            break
        except OSError as error:
            reasons.append(str(error))
    else:
        raise ImportError("libxkd.so.0 was not found: install the library ('make install'), or name the file in "
                          "XKD_LIBRARY" + "".join(f"\n  {r}" for r in reasons))
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


lib = _load()
