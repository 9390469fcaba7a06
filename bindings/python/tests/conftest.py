"""A small model, a classifier and videos, made by the xkd program of the build folder ($XKD_BUILD, default: build)."""
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = (ROOT / os.environ.get("XKD_BUILD", "build")).resolve()
os.environ.setdefault("XKD_LIBRARY", str(BUILD / "libxkd.so.0"))
sys.path.insert(0, str(ROOT / "bindings" / "python"))
TINY = ROOT / "tests" / "data" / "tiny.yaml"


def xkd_program(*words, cwd=None):
    return subprocess.run([str(BUILD / "xkd"), *map(str, words)], cwd=cwd, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def program():
    return xkd_program


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Folder with toys/ (3 classes, 5 clips each), toys.jsonl, the run `run` and the classifier `classes`."""
    folder = tmp_path_factory.mktemp("world")
    xkd_program("data", "synth", "--out", "toys", "--classes", 3, "--clips", 5, "--seconds", 3, "--size", 64, "-q", cwd=folder)
    xkd_program("data", "index", "toys", "--out", "toys.jsonl", "-q", cwd=folder)
    xkd_program("pretrain", "-c", TINY, "--data", "toys.jsonl", "--out", "run", "--max-steps", 2, "-q", cwd=folder)
    xkd_program("linear", "run", "toys.jsonl", "--out", "classes", "-c", TINY, "--modality", "video", "dataset.batch_size=5",
                "hyperparams.num_epochs=2", "-q", cwd=folder)
    (folder / "broken.mp4").write_bytes(bytes(i * 7 % 251 for i in range(3000)))
    return folder


@pytest.fixture(scope="session")
def video(world):
    return world / "toys" / "test" / "bounce" / "00004.mp4"
