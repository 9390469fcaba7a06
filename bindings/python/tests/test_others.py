import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import xkd
from conftest import ROOT, TINY


def test_classifier(world, video, program):
    files = sorted((world / "toys" / "test").glob("*/*.mp4"))
    with xkd.Classifier(world / "classes") as c:
        assert c.classes == ["bounce", "orbit", "sweep"] and c.modality == "video" and not c.multi_label
        scores = c.scores(video)
        assert scores.shape == (3,) and abs(scores.sum() - 1) < 1e-5
        top = c.predict(video, top=2)
        assert len(top) == 2 and top[0][1] == scores.max()
        printed = program("predict", world / "classes", video, "--top", 1).split("\t")
        assert printed == [f"{top[0][1]:.4f}", top[0][0] + "\n"]
        many = c.scores_many(files + [world / "broken.mp4"], errors="none")
        assert np.isnan(many[-1]).all()
        assert all(np.array_equal(c.scores(f), many[i]) for i, f in enumerate(files))
        with pytest.raises(xkd.DataError, match="broken.mp4"):
            c.scores_many([world / "broken.mp4"])
        clips = np.random.default_rng(1).standard_normal((3,) + c.clip).astype(np.float32)
        assert np.allclose(c.scores_clips(clips).sum(1), 1, atol=1e-5)
    assert xkd.predict(world / "classes", video, top=1)[0] == top[0]
    with pytest.raises(xkd.CheckpointError, match="classifier"):
        xkd.Classifier(world / "run")


def test_reader(video):
    clip = xkd.read_clip(video, 0.5)
    assert clip.frames.dtype == np.uint8 and clip.frames.shape[0] == 20 and min(clip.frames.shape[1:3]) == 112
    assert clip.samples.dtype == np.float32 and 39900 <= len(clip.samples) <= 40500 and abs(clip.samples).max() <= 1
    assert clip.start == 0.5 and 2.9 < clip.duration < 3.2
    with xkd.Reader() as r:
        a, b = r.clip(video, 0.5), r.clip(video, 1.5)
        assert np.array_equal(a.frames, clip.frames) and np.array_equal(a.frames[8:], b.frames)
        view = r.clip(video, copy=False).frames
        assert not view.flags.owndata
        one, two, other = (r.views(video, 0, seed=1, epoch=e) for e in (0, 0, 1))
        assert [v.shape for v in one.video] == [(3, 32, 112, 112), (3, 8, 96, 96)]
        assert [v.shape for v in one.audio] == [(1, 80, 448), (1, 80, 112)]
        assert all(np.array_equal(x, y) for x, y in zip(one.video, two.video))
        assert not np.array_equal(one.video[0], other.video[0])
        with pytest.raises(xkd.DataError, match="ends at"):
            r.clip(video, 99)


def test_listing(world):
    files, classes = xkd.list_files(world / "toys.jsonl", "test")
    assert classes == ["bounce", "orbit", "sweep"] and len(files) == 3
    assert files[0].label == 0 and files[0].path.endswith("toys/test/bounce/00004.mp4") and os.path.exists(files[0].path)
    assert files[0].video_seconds > 2.9
    with pytest.raises(xkd.DataError):
        xkd.list_files(world / "toys.jsonl", "no such split")


def test_retrieve(world, program):
    features = world / "all.safetensors"
    program("embed", world / "run", world / "toys" / "test", "--out", features, "-q")
    with xkd.Collection(features) as c:
        assert len(c.files) == 3 and c.clips["video"] == 9 and c.width["video"] == 32 and not c.comparable
        found = c.like("bounce/00004.mp4", k=4)
        assert len(found) == 4 and all(m.path != "bounce/00004.mp4" for m in found)
        assert sorted((m.cosine for m in found), reverse=True) == [m.cosine for m in found]
        printed = program("retrieve", features, "--like", "bounce/00004.mp4", "--show", 4).splitlines()
        assert [line.split()[-1] for line in printed] == [m.path for m in found]
        with xkd.Encoder(world / "run") as e:
            f = e.embed(world / "toys" / "test" / "orbit" / "00004.mp4")
        best = c.search(f.video[1], k=1)[0]
        assert best.path == "orbit/00004.mp4" and best.seconds == 1 and best.cosine > 0.999999
        with pytest.raises(xkd.DataError, match="projection heads"):
            c.like("bounce/00004.mp4", query="audio", against="video")
        with pytest.raises(ValueError):
            c.search(np.zeros(3))
    assert xkd.retrieve(features, "bounce/00004.mp4", k=4) == found


def test_pretrain(world, tmp_path):
    lines = []
    settings = {"run.max_steps": 2, "data.workers": 1}
    result = xkd.pretrain(world / "toys.jsonl", tmp_path / "run", config=TINY, settings=settings, progress=lines.append)
    assert result.step == 2 and np.isfinite(result.loss) and lines
    with pytest.raises(xkd.ConfigError):
        xkd.pretrain(world / "toys.jsonl", tmp_path / "run", config=TINY, settings=settings)

    class Enough(Exception):
        pass

    def stop(_line):
        raise Enough

    with pytest.raises(Enough):
        xkd.pretrain(world / "toys.jsonl", tmp_path / "other", config=TINY, progress=stop)
    assert list((tmp_path / "other" / "checkpoints").glob("*.safetensors"))


def test_pretrain_control_c(world, tmp_path):
    code = textwrap.dedent(f"""
        import xkd
        try:
            xkd.pretrain({str(world / 'toys.jsonl')!r}, {str(tmp_path / 'run')!r}, config={str(TINY)!r},
                         settings={{"hyperparams.num_epochs": 100000}}, progress=lambda line: print("step", flush=True))
        except KeyboardInterrupt:
            print("interrupted")
    """)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "bindings" / "python")}
    p = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)
    assert p.stdout.readline() == "step\n"
    p.send_signal(signal.SIGINT)
    out, _ = p.communicate(timeout=60)
    assert out.endswith("interrupted\n")
    assert list((tmp_path / "run" / "checkpoints").glob("*.safetensors"))


def test_installs_without_a_network_or_compiler(world, video, tmp_path):
    """pip builds the wheel with what is in the folder, and three lines embed a clip."""
    pytest.importorskip("pip")
    target = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", target,
                    ROOT / "bindings" / "python"], check=True, env={**os.environ, "CC": "/bin/false", "CXX": "/bin/false"})
    code = f"import xkd\nfeatures = xkd.Encoder({str(world / 'run')!r}).embed({str(video)!r})\nprint(features.video.shape)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path,
                         env={**os.environ, "PYTHONPATH": str(target)}).stdout
    assert out == "(3, 32)\n"
