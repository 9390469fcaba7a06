"""Video and audio encoders trained without labels: features, classes, clips and training, through libxkd.

    import xkd
    features = xkd.Encoder("runs/first").embed("clip.mp4")
    features.video.shape      # (clips, width)

Objects hold a model or a decoder; `with` or close() closes them. Exceptions are in xkd.errors. xkd.torch has the encoders as
PyTorch modules and a data set. Import it separately, because only it needs PyTorch.
"""
from ._library import lib as _lib
from ._version import __version__
from .classifier import Classifier
from .clip import Clip, ListedFile, Reader, Views, list_files, read_clip
from .encoder import Encoder, EncoderInfo, Features, Window
from .errors import (CheckpointError, ConfigError, DataError, DeviceError, Error, InternalError, Interrupted,
                     NumericError, OutOfMemoryError, PeerError, Preempted, StorageError)
from .retrieve import Collection, Match, retrieve
from .training import RunResult, pretrain


def library_version() -> str:
    """Version of libxkd, which runs underneath."""
    return _lib.xkd_version().decode()


def predict(model, source, *, top: int = 5):
    """The likeliest classes of a file and their scores. Keep a Classifier if you have many files."""
    with Classifier(model) as classifier:
        return classifier.predict(source, top=top)


__all__ = ["CheckpointError", "Classifier", "Clip", "Collection", "ConfigError", "DataError", "DeviceError", "Encoder",
           "EncoderInfo", "Error", "Features", "InternalError", "Interrupted", "ListedFile", "Match", "NumericError",
           "OutOfMemoryError", "PeerError", "Preempted", "Reader", "RunResult", "StorageError", "Views", "Window",
           "__version__", "library_version", "list_files", "predict", "pretrain", "read_clip", "retrieve"]
