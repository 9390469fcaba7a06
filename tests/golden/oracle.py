#!/usr/bin/env python3
"""A training step of docs/method.md in PyTorch and float64, written from that page alone and sharing nothing with the
program. It checks itself against the recorded cases beside it, and records the case of grouped samples:

    tests/golden/oracle.py check CASE...     every loss, gradient and final tensor of recorded cases
    tests/golden/oracle.py groups            writes xkd_groups: 8 samples a step, MMD over groups of 2

Not part of the tests, which need no Python; for whoever wants to record another case. Needs torch and PyYAML."""
import json, pathlib, shutil, struct, sys

import numpy as np
import torch
import torch.nn.functional as F
import yaml

HERE = pathlib.Path(__file__).resolve().parent
SIDES = ("vid", "aud")
EMBEDDING = {"vid": "cuboid_embed", "aud": "patch_embed"}


def read_tensors(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, t in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + offset for offset in t["data_offsets"])
            values = np.frombuffer(data[begin:end], "<f4").reshape(t["shape"])
            tensors[name] = torch.tensor(values, dtype=torch.float64)
    return tensors


def write_tensors(path, tensors):
    header, pieces, at = {}, [], 0
    for name, t in tensors.items():
        piece = t.detach().to(torch.float32).numpy().astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [at, at + len(piece)]}
        pieces.append(piece)
        at += len(piece)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(pieces))


class Model:
    """The tensors of a case and the formulas over them. `p` maps public names to tensors; names that share a tensor map to
    one object."""

    def __init__(self, config, tensors):
        self.kwargs, self.fwd = config["model"]["kwargs"], config["model"]["fwd_kwargs"]
        self.name = config["model"]["name"]
        self.p = dict(tensors)
        shared = {"XKD": (), "XKD_MAS": ("student",), "XKD_MATS": ("student", "teacher")}[self.name]
        for role in shared:
            for name in tensors:
                if name.startswith(f"vid_{role}.backbone.encoder.blocks."):
                    self.p[name.replace("vid_", "aud_", 1)] = self.p[name]

    def trained(self):
        """Names of the trained tensors, each tensor once."""
        seen, names = set(), []
        for name, t in self.p.items():
            if "teacher" in name or "center" in name or name.endswith("weight_g") or id(t) in seen:
                continue
            seen.add(id(t))
            names.append(name)
        return names

    def linear(self, x, name):
        return F.linear(x, self.p[f"{name}.weight"], self.p.get(f"{name}.bias"))

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.p[f"{name}.weight"], self.p[f"{name}.bias"], 1e-5)

    def blocks(self, x, prefix, heads):
        """Section 4. Also returns the last block's softmax, [B,H,N,N]."""
        depth = 1 + max(int(n[len(prefix):].split(".")[0]) for n in self.p if n.startswith(prefix))
        for i in range(depth):
            b, n, d = x.shape
            block = f"{prefix}{i}"
            qkv = self.linear(self.norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
            q, k, v = qkv.reshape(b, n, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
            weights = (q @ k.transpose(-1, -2) * (d // heads) ** -0.5).softmax(-1)
            x = x + self.linear((weights @ v).transpose(1, 2).reshape(b, n, d), f"{block}.attn.proj")
            inner = F.gelu(self.linear(self.norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
            x = x + self.linear(inner, f"{block}.mlp.fc2")
        return x, weights

    def sizes(self, side):
        if side == "vid":
            return (self.kwargs["vid_patch_temporal"], *self.kwargs["vid_patch_spatial"])
        return (1, *self.kwargs["spec_patch_spatial"])

    def patches(self, clip, side):
        """[B,C,T,H,W] or [B,1,F,T] to [B,N,P] and the grid; section 3."""
        if side == "aud":
            clip = clip[:, :, None]
        b, c, *lengths = clip.shape
        size = self.sizes(side)
        grid = tuple(n // s for n, s in zip(lengths, size))
        cut = clip.reshape(b, c, grid[0], size[0], grid[1], size[1], grid[2], size[2])
        return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, grid[0] * grid[1] * grid[2], -1), grid

    def positions(self, backbone, side, grid):
        """The table for another grid than the model's, gradients included; section 3, Other input sizes."""
        table = self.p[f"{backbone}.enc_pos_embed"]
        full = self.grid[side]
        if grid == full:
            return table[:, :1], table[:, 1:]
        scale = [1.0 if n == m else (n + 0.1) / m for n, m in zip(grid, full)]
        rows = table[0, 1:].reshape(1, *full, -1).permute(0, 4, 1, 2, 3)
        if side == "vid":
            rows = F.interpolate(rows, scale_factor=scale, mode="trilinear", recompute_scale_factor=False)
        else:
            rows = F.interpolate(rows[:, :, 0], scale_factor=scale[1:], mode="bicubic", recompute_scale_factor=False)
        return table[:, :1], rows.reshape(1, table.shape[-1], -1).transpose(1, 2)

    def encode(self, backbone, side, clip, kept=None):
        """Tokens after encoder_norm, [B,1+N,D], and the last block's softmax. kept [B,n]: of these tokens, in this order."""
        patches, grid = self.patches(clip, side)
        first, rest = self.positions(backbone, side, grid)
        x = self.linear(patches, f"{backbone}.{EMBEDDING[side]}.proj") + rest
        if kept is not None:
            x = x.gather(1, kept[:, :, None].expand(-1, -1, x.shape[-1]))
        cls = (self.p[f"{backbone}.cls_token"] + first).expand(len(x), -1, -1)
        role = "teacher" if "teacher" in backbone else "student"
        x, weights = self.blocks(torch.cat([cls, x], 1), f"{backbone}.encoder.blocks.",
                                 self.kwargs[f"{role}_cfg"]["num_heads"])
        return self.norm(x, f"{backbone}.encoder_norm"), weights

    def head(self, x, head):
        for i in (0, 3):
            x = F.gelu(self.norm(self.linear(x, f"{head}.mlp.{i}"), f"{head}.mlp.1"))
        x = F.normalize(self.linear(x, f"{head}.mlp.6"), dim=-1, eps=1e-12)
        v = self.p[f"{head}.last_layer.weight_v"]
        x = x @ (self.p[f"{head}.last_layer.weight_g"] * v / v.norm(dim=1, keepdim=True)).T
        return F.layer_norm(x, x.shape[-1:], eps=1e-5)

    def reconstruct(self, side, clip, noise):
        """Loss of the autoencoder, and its latent without the class token."""
        ae, student = f"{side}_ae", f"{side}_student.backbone"
        patches, _ = self.patches(clip, side)
        n = patches.shape[1]
        count = round(n * (1 - self.fwd[f"{side}_mask_ratio"]))
        order = noise.argsort(dim=1, stable=True)
        kept = order[:, :count]
        latent, _ = self.encode(student, side, clip, kept)
        x = self.linear(latent, f"{ae}.mid_proj")
        gaps = self.p[f"{ae}.mask_token"].expand(len(x), n - count, -1)
        back = order.argsort(dim=1)[:, :, None].expand(-1, -1, x.shape[-1])
        x = torch.cat([x[:, :1], torch.cat([x[:, 1:], gaps], 1).gather(1, back)], 1) + self.p[f"{ae}.dec_pos_embed"]
        x, _ = self.blocks(x, f"{ae}.decoder.blocks.", self.kwargs["decoder_cfg"]["num_heads"])
        x = self.linear(x, f"{ae}.out_proj")[:, 1:]
        target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
        masked = torch.ones(len(x), n, dtype=x.dtype).scatter(1, kept, 0.0)
        return (((x - target) ** 2).mean(-1) * masked).sum() / masked.sum(), latent[:, 1:]

    def teach(self, clips):
        """Logits of both teachers, refined; section 5."""
        features, attention = {}, {}
        for side in SIDES:
            x, weights = self.encode(f"{side}_teacher.backbone", side, clips[side])
            features[side], attention[side] = x[:, 1:], weights[:, :, 0, 1:]
        x = attention["vid"][:, :, :, None] * attention["aud"][:, :, None, :]
        logits = {}
        for side, over in (("vid", 3), ("aud", 2)):
            w = (x.mean(over) / attention[side].mean(-1, keepdim=True)).mean(1)[:, :, None]
            f = features[side]
            plain, weighted = f.mean(1), (w * f).mean(1)
            scale = (plain.square().sum(-1, keepdim=True) / weighted.square().sum(-1, keepdim=True)).sqrt()
            logits[side] = self.head(scale * weighted, f"{side}_teacher.head")
        return logits

    def mmd(self, x, y, samples):
        """Mean over groups of samples; x and y are [views * samples, K]."""
        group = self.fwd.get("mmd_group", 0) or samples
        x, y = (t.reshape(-1, samples, t.shape[-1]) for t in (x, y))
        parts = []
        for at in range(0, samples, group):
            a, b = (t[:, at:at + group].reshape(-1, t.shape[-1]) for t in (x, y))
            parts.append(kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))
        return sum(parts) / len(parts)

    def losses(self, batch, at, values):
        """All losses of a step, and the teachers' logits."""
        clips = {side: recorded_views(batch, f"{at}.{word}") for side, word in (("vid", "frames"), ("aud", "specs"))}
        self.grid = {side: self.patches(clips[side][0], side)[1] for side in SIDES}
        samples, out, students = len(clips["vid"][0]), {}, {}
        for side in SIDES:
            loss, latent = self.reconstruct(side, clips[side][0], batch[f"{at}.{side}_noise"])
            out[f"{side}_recon_loss"] = loss
            local = [self.encode(f"{side}_student.backbone", side, clip)[0] for clip in clips[side][1:]]
            pooled = torch.cat([latent.mean(1)] + [x[:, 1:].mean(1) for x in local])
            students[side] = self.head(pooled, f"{side}_student.head")
        view = 0 if self.fwd["teacher_view"] == "global" else 1
        with torch.no_grad():
            teachers = self.teach({side: clips[side][view] for side in SIDES})
        out["as2vs_align_loss"] = self.mmd(students["vid"], students["aud"], samples)
        out["vt2at_align_loss"] = self.mmd(teachers["vid"], teachers["aud"], samples)
        for word, teacher, student in (("vt2as", "vid", "aud"), ("at2vs", "aud", "vid")):
            long = {"vid": "video", "aud": "audio"}
            sharp = (teachers[teacher] - self.p[f"{word}_ce_loss.center"]) / values["teacher_temp"][long[teacher]]
            q = sharp.softmax(-1)
            s = (students[student] / values["student_temp"][long[student]]).log_softmax(-1).reshape(-1, samples, q.shape[-1])
            out[f"{word}_kd_loss"] = -(q * s).sum(-1).mean()
        out["recon_loss"] = (out["vid_recon_loss"] + out["aud_recon_loss"]) / 2
        out["cmkd_loss"] = (out["vt2as_kd_loss"] + out["at2vs_kd_loss"]) / 2
        out["alignment_loss"] = (out["as2vs_align_loss"] + out["vt2at_align_loss"]) / 2
        a, c, r = (self.fwd[f"{word}_coeff"] for word in ("align", "cmkd", "recon"))
        out["loss"] = (a * out["alignment_loss"] + c * out["cmkd_loss"] + r * out["recon_loss"]) / (a + c + r)
        return out, teachers

    def average(self, values):
        """Teachers follow their students; shared blocks are averaged for video and again for audio."""
        for side in SIDES:
            m = values[f"{side}_ema"]
            for name in [n for n in self.p if n.startswith(f"{side}_teacher.")]:
                self.p[name].mul_(m).add_(self.p[name.replace("teacher", "student", 1)], alpha=1 - m)

    def move_centres(self, teachers):
        for (word, side), m in zip((("vt2as", "vid"), ("at2vs", "aud")), self.kwargs["center_momentum"]):
            self.p[f"{word}_ce_loss.center"].mul_(m).add_(teachers[side].mean(0, keepdim=True), alpha=1 - m)


def recorded_views(batch, name):
    """The global view, then the local ones."""
    return [batch[f"{name}.{i}"] for i in range(sum(n.startswith(f"{name}.") for n in batch))]


def kernel(x, y):
    """Mean of the sum of Gaussians over all pairs; section 6, MMD."""
    squares = (x[:, None] - y[None]).square().sum(-1)
    return sum((-gamma * squares).exp().mean() for gamma in (1e-3, 1e-2, 0.1, 1, 10, 100, 1000))


def run(config, tensors, batch, steps):
    """Losses of every step, gradients of the first, and the final tensors."""
    model = Model(config, {name: t.clone() for name, t in tensors.items()})
    names = model.trained()
    trained = {name: model.p[name].requires_grad_() for name in names}
    groups = [{"params": [t for n, t in trained.items() if (t.ndim == 1 or n.endswith("bias")) == plain]} for plain in (False, True)]
    optimizer = torch.optim.AdamW(groups, betas=config["hyperparams"]["optimizer"]["betas"], eps=1e-8)
    losses, gradients = [], None
    for i, values in enumerate(steps):
        out, teachers = model.losses(batch, f"step{i + 1}", values)
        optimizer.zero_grad()
        out["loss"].backward()
        losses.append({name: float(value.detach()) for name, value in out.items()})
        if gradients is None:
            gradients = {name: t.grad.clone() for name, t in trained.items()}
        for name, t in trained.items():
            if "student" in name:
                t.grad.mul_(min(1.0, model.fwd["clip_grad"] / (float(t.grad.norm()) + 1e-6)))
        for group, decay in zip(optimizer.param_groups, (values["weight_decay"], 0)):
            group.update(lr=values["lr"], weight_decay=decay)
        optimizer.step()
        with torch.no_grad():
            model.average(values)
            model.move_centres(teachers)
    return losses, gradients, {name: model.p[name].detach() for name in tensors}


def case(folder):
    return (yaml.safe_load((folder / "config.yaml").read_text()), read_tensors(folder / "init.safetensors"),
            read_tensors(folder / "batch.safetensors"), json.loads((folder / "steps.json").read_text()))


def check(folder):
    """Losses to 1e-9; gradients and final tensors to the float32 of the recording."""
    losses, gradients, final = run(*case(folder))
    for i, (got, want) in enumerate(zip(losses, json.loads((folder / "expected.json").read_text())["losses"])):
        for name, value in want.items():
            assert abs(got[name] - value) <= 1e-9 * max(1, abs(value)), (folder.name, i + 1, name, got[name], value)
    for what, got in (("grads", gradients), ("final", final)):
        want = read_tensors(folder / f"{what}.safetensors")
        assert want.keys() == got.keys(), want.keys() ^ got.keys()
        worst = max(float((got[n] - want[n]).norm() / want[n].norm().clamp(min=1e-6)) for n in want)
        print(f"{folder.name}: {what} within {worst:.1e} of the recording")
        assert worst < 1e-6, (folder.name, what)


def record_groups():
    """Weights, step values and sizes of the case `xkd`; data of its own."""
    source, folder = HERE / "xkd", HERE / "xkd_groups"
    folder.mkdir(exist_ok=True)
    for name in ("init.safetensors", "steps.json"):
        shutil.copyfile(source / name, folder / name)
    text = (source / "config.yaml").read_text().replace("  fwd_kwargs:\n", "  fwd_kwargs:\n    mmd_group: 2\n")
    (folder / "config.yaml").write_text(text)
    generator = torch.Generator().manual_seed(2022)
    batch = {}
    for name, t in read_tensors(source / "batch.safetensors").items():
        draw = torch.rand if name.endswith("noise") else torch.randn
        batch[name] = draw(8, *t.shape[1:], generator=generator).double()
    write_tensors(folder / "batch.safetensors", batch)
    losses, gradients, final = run(*case(folder))
    (folder / "expected.json").write_text(json.dumps({"losses": losses}, indent=1) + "\n")
    write_tensors(folder / "grads.safetensors", gradients)
    write_tensors(folder / "final.safetensors", final)


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"] and len(sys.argv) > 2:
        for path in sys.argv[2:]:
            check(pathlib.Path(path))
    elif sys.argv[1:] == ["groups"]:
        record_groups()
    else:
        sys.exit(__doc__)
