import numpy as np
import pytest

torch = pytest.importorskip("torch")
import xkd  # noqa: E402
import xkd.torch  # noqa: E402


@pytest.mark.parametrize("modality", ["video", "audio"])
@pytest.mark.parametrize("pool", ["mean", "cls", "none"])
def test_features_equal(world, modality, pool):
    with xkd.Encoder(world / "run", pool=pool) as e:
        clips = np.random.default_rng(3).standard_normal((5,) + e.info[modality].clip).astype(np.float32)
        ours = e.embed_clips(modality, clips)
    module = xkd.torch.load(world / "run", modality, pool=pool)
    with torch.no_grad():
        theirs = module(torch.from_numpy(clips)).numpy()
    assert theirs.shape == ours.shape and abs(theirs - ours).max() < 1e-5
    assert not module.training


@pytest.mark.parametrize("modality,settings", [
    ("video", {"dataset.crop_size": 48}), ("video", {"dataset.crop_size": 24, "dataset.clip_duration": 2}),
    ("audio", {"dataset.clip_duration": 2.0}), ("audio", {"dataset.clip_duration": 0.5})])
def test_other_sizes_interpolate_alike(world, modality, settings):
    with xkd.Encoder(world / "run", modality=modality, settings=settings) as e:
        clips = np.random.default_rng(4).standard_normal((2,) + e.info[modality].clip).astype(np.float32)
        ours = e.embed_clips(modality, clips)
        module = xkd.torch.load(e, modality)
    with torch.no_grad():
        theirs = module(torch.from_numpy(clips)).numpy()
    assert clips.shape[1:] != (3, 8, 32, 32)
    assert abs(theirs - ours).max() < 1e-5


def test_student_and_names(world):
    teacher, student = (xkd.torch.load(world / "run", student=s) for s in (False, True))
    assert not torch.equal(teacher.cls_token, student.cls_token)
    assert {"cls_token", "enc_pos_embed", "cuboid_embed.proj.weight", "encoder.blocks.1.attn.qkv.weight",
            "encoder_norm.bias"} <= set(teacher.state_dict())


def test_is_trainable(world):
    module = xkd.torch.load(world / "run").train()
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3)
    x, wanted = torch.randn(4, 3, 8, 32, 32), torch.randn(4, 32)
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        loss = ((module(x) - wanted) ** 2).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())
    assert losses[-1] < losses[0]


def test_exports(world, tmp_path):
    module = xkd.torch.load(world / "run")
    x = torch.randn(2, 3, 8, 32, 32)
    exported = torch.export.export(module, (x,)).module()
    assert torch.allclose(exported(x), module(x), atol=1e-6)
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    torch.onnx.export(module, (x,), str(tmp_path / "m.onnx"))
    assert (tmp_path / "m.onnx").stat().st_size > 1000


def test_dataset(world):
    data = xkd.torch.Dataset(world / "toys.jsonl", seed=5, settings=["dataset.clip_duration=1", "dataset.crop_size=32"])
    assert len(data) == 15 and data.classes == ["bounce", "orbit", "sweep"]
    views, label = data[3]
    assert views.video[0].shape == (3, 8, 32, 32) and views.audio[0].shape[0] == 1 and label in (0, 1, 2)
    again, _ = data[3]
    data.set_epoch(1)
    other, _ = data[3]
    assert torch.equal(views.video[0], again.video[0]) and not torch.equal(views.video[0], other.video[0])
    with pytest.raises(IndexError):
        data[15]


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader(world, workers):
    data = xkd.torch.Dataset(world / "toys.jsonl", seed=5, settings=["dataset.clip_duration=1", "dataset.crop_size=32"],
                             transform=lambda v: torch.from_numpy(v.video[0]))
    first = data[0][0]  # a reader in this process, before workers are forked
    loader = torch.utils.data.DataLoader(data, batch_size=4, num_workers=workers)
    batches = list(loader)
    assert sum(len(b[1]) for b in batches) == 15 and batches[0][0].shape == (4, 3, 8, 32, 32)
    assert torch.equal(batches[0][0][0], first)
    assert torch.equal(data[0][0], first)
