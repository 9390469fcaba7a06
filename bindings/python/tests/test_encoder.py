import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import xkd
from conftest import ROOT


def safetensors(path):
    import json
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    out = {}
    for name, t in header.items():
        if name != "__metadata__" and t["dtype"] == "F32":
            a, b = t["data_offsets"]
            out[name] = np.frombuffer(data[8 + size + a:8 + size + b], dtype=np.float32).reshape(t["shape"])
    return out


@pytest.fixture
def encoder(world):
    with xkd.Encoder(world / "run") as e:
        yield e


def test_features_are_those_of_the_program(world, video, encoder, program, tmp_path):
    program("embed", world / "run", video, "--out", tmp_path / "f.safetensors", "-q")
    wanted = safetensors(tmp_path / "f.safetensors")
    f = encoder.embed(video)
    assert np.array_equal(f.video, wanted["video"]) and np.array_equal(f.audio, wanted["audio"])
    assert f.video.shape == (3, 32) and f.video.dtype == np.float32
    assert list(f.video_seconds) == [0, 1, 2]
    assert np.array_equal(f["video"], f.video)
    assert encoder.info["video"].clip == (3, 8, 32, 32)
    # The result is the caller's: another call leaves it alone.
    copy = f.video.copy()
    encoder.embed(world / "toys" / "test" / "orbit" / "00004.mp4")
    assert np.array_equal(copy, f.video)


def test_windows(video, encoder):
    f = encoder.embed(video)
    windows = list(encoder.windows(str(video)))
    assert [w.index for w in windows] == [0, 1, 2] and [w.seconds for w in windows] == [0, 1, 2]
    assert all(np.array_equal(w.video, f.video[w.index]) for w in windows)
    it = encoder.windows(video)
    next(it)
    with pytest.raises(xkd.ConfigError, match="windows of a file are open"):
        encoder.embed(video)
    it.close()
    assert np.array_equal(encoder.embed(video).video, f.video)
    for w in encoder.windows(video):
        break  # collected, and with it closed
    del w
    gc.collect()
    encoder.embed(video)


def test_many(world, video, encoder, caplog):
    files = sorted((world / "toys" / "test").glob("*/*.mp4"))
    got = encoder.embed_many(files + [world / "broken.mp4"], errors="none")
    assert len(got) == len(files) + 1 and got[-1] is None
    assert "broken.mp4" in caplog.text
    for path, f in zip(files, got):
        assert np.array_equal(f.video, encoder.embed(path).video)
    with pytest.raises(xkd.DataError, match="broken.mp4"):
        encoder.embed_many([video, world / "broken.mp4"])
    encoder.embed(video)


def test_memory_is_as_a_file(world, video):
    settings = {"dataset.crop_size": 64, "dataset.clip_duration": 3}
    with xkd.Reader(settings=settings) as reader, xkd.Encoder(world / "run") as encoder:
        clip = reader.clip(video)
        assert clip.frames.shape[0] == 24 and clip.fps == 8 and clip.sample_rate == 16000
        f = encoder.embed(video)
        m = encoder.embed(frames=clip.frames, samples=clip.samples)
        assert np.array_equal(m.video, f.video)
        assert m.audio.shape == f.audio.shape
        # Strides of any kind: upside down and back, four bytes a pixel, every second sample.
        wide = np.zeros(clip.frames.shape[:3] + (4,), dtype=np.uint8)
        wide[..., :3] = clip.frames[:, ::-1]
        spread = np.zeros(2 * len(clip.samples), dtype=np.float32)
        spread[::2] = clip.samples
        m2 = encoder.embed(frames=wide[:, ::-1, :, :], samples=spread[::2])
        assert np.array_equal(m2.video, f.video) and np.array_equal(m2.audio, m.audio)
        ints = np.rint(clip.samples * 32767).astype(np.int16)
        assert np.array_equal(encoder.embed(samples=ints).audio, m.audio)
        for bad in (clip.frames[0], clip.frames.astype(np.float32), clip.frames[..., :2]):
            with pytest.raises(ValueError):
                encoder.embed(frames=bad)
        with pytest.raises(ValueError):
            encoder.embed(video, frames=clip.frames)
        with pytest.raises(xkd.ConfigError):
            encoder.embed()


def test_clips_write_in_place(encoder):
    clips = np.random.default_rng(0).standard_normal((11,) + encoder.info["audio"].clip).astype(np.float32)
    out = np.empty((11, encoder.info["audio"].width), dtype=np.float32)
    assert encoder.embed_clips("audio", clips, out=out) is out
    assert np.array_equal(encoder.embed_clips("audio", clips[3:4])[0], out[3])
    with pytest.raises(ValueError):
        encoder.embed_clips("audio", clips[:, :, :, :, 1:])
    with pytest.raises(ValueError):
        encoder.embed_clips("audio", clips, out=out[:, ::2])
    clips[2] = np.nan
    with pytest.raises(xkd.NumericError, match="clip 2"):
        encoder.embed_clips("audio", clips)


def test_options(world, video):
    with xkd.Encoder(world / "run", modality="video", pool="none", take="test", clips=2, threads=1) as e:
        f = e.embed(video)
        assert f.video.shape == (2, e.info["video"].rows, 32) and f.audio is None
    with pytest.raises(ValueError, match="pool='max'"):
        xkd.Encoder(world / "run", pool="max")
    with pytest.raises(xkd.ConfigError):
        xkd.Encoder(world / "run", settings={"run.thread": 1})


def test_errors(world, encoder):
    with pytest.raises(xkd.CheckpointError, match="no such model") as e:
        xkd.Encoder("/no/model")
    assert e.value.status == 4 and isinstance(e.value, xkd.Error)
    with pytest.raises(xkd.DataError, match="/no/clip.mp4: no such file"):
        encoder.embed("/no/clip.mp4")
    with pytest.raises(xkd.DataError, match="broken.mp4"):
        encoder.embed(world / "broken.mp4")
    encoder.close()
    encoder.close()
    with pytest.raises(ValueError, match="closed"):
        encoder.embed(world / "broken.mp4")


def test_odd_names(world, video, encoder):
    import shutil
    name = os.fsdecode(os.fsencode(str(world)) + b"/caf\xe9 \xff.mp4")
    shutil.copy(video, name)
    assert np.array_equal(encoder.embed(name).video, encoder.embed(video).video)
    with pytest.raises(xkd.DataError):
        encoder.embed(name + "x")


def test_progress_and_its_exceptions(world, video):
    seen = []
    with xkd.Encoder(world / "run", progress=lambda *p: seen.append(p)) as e:
        e.embed(video)
    assert seen and seen[-1][0] == "embed"

    class Enough(Exception):
        pass

    def stop(*_):
        raise Enough

    with xkd.Encoder(world / "run", progress=stop) as e:
        with pytest.raises(Enough):
            e.embed(video)
        e._progress = None
        e.embed(video)


def test_two_threads(world, video):
    wanted, results, errors = None, {}, []
    with xkd.Encoder(world / "run", threads=1) as a, xkd.Encoder(world / "run", threads=2) as b:
        wanted = a.embed(video)

        def work(name, encoder):
            try:
                for i in range(5):
                    if i == 2:
                        with pytest.raises(xkd.DataError, match="broken.mp4"):
                            encoder.embed(world / "broken.mp4")
                    results[name, i] = encoder.embed(video).video
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=p) for p in (("a", a), ("b", b), ("a2", a))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not errors, errors
    assert len(results) == 15 and all(np.array_equal(r, wanted.video) for r in results.values())


def test_other_threads_run_meanwhile(world):
    """A call gives the interpreter free: a counter goes on while clips are computed."""
    with xkd.Encoder(world / "run", threads=1) as e:
        clips = np.zeros((3000,) + e.info["video"].clip, dtype=np.float32)
        counted, over = [0], threading.Event()

        def count():
            while not over.is_set():
                counted[0] += 1
                time.sleep(0.001)

        t = threading.Thread(target=count)
        t.start()
        begin = time.monotonic()
        e.embed_clips("video", clips)
        spent = time.monotonic() - begin
        over.set()
        t.join()
        assert counted[0] > 20 * spent


def test_control_c(world):
    """Ctrl-C ends a call within a second, as KeyboardInterrupt, and the encoder goes on."""
    code = textwrap.dedent(f"""
        import numpy as np, sys, time, xkd
        e = xkd.Encoder({str(world / 'run')!r}, threads=1)
        clips = np.zeros((200000,) + e.info["audio"].clip, dtype=np.float32)
        print("ready", flush=True)
        try:
            e.embed_clips("audio", clips)
            print("ended")
        except KeyboardInterrupt:
            print("interrupted", e.embed_clips("audio", clips[:2]).shape, flush=True)
    """)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "bindings" / "python")}
    p = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)
    assert p.stdout.readline() == "ready\n"
    time.sleep(0.3)
    p.send_signal(signal.SIGINT)
    out, _ = p.communicate(timeout=30)
    assert out == "interrupted (2, 32)\n" and p.returncode == 0


def test_nothing_is_left(world, video):
    """Closing gives processes, threads and descriptors back."""
    def count():
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    with xkd.Encoder(world / "run") as e:
        e.embed(video)
    before = count()
    for _ in range(5):
        with xkd.Encoder(world / "run") as e:
            e.embed(video)
    assert count() == before


def test_fork(world, video):
    """A child says so where it uses a handle of its parent's, opens one of its own, and closes nothing of the parent's."""
    code = textwrap.dedent(f"""
        import gc, os, xkd
        e = xkd.Encoder({str(world / 'run')!r}, threads=1)
        wanted = e.embed({str(video)!r}).video
        pid = os.fork()
        if pid == 0:
            try:
                e.embed({str(video)!r})
            except ValueError as error:
                assert "another process" in str(error)
                own = xkd.Encoder({str(world / 'run')!r}, threads=1)
                same = (own.embed({str(video)!r}).video == wanted).all()
                own.close()
                del e
                gc.collect()
                os._exit(7 if same else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert (e.embed({str(video)!r}).video == wanted).all()
        print("good")
    """)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "bindings" / "python")}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert out.stdout == "good\n", out.stderr
