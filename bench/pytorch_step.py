#!/usr/bin/env python3
"""The same full-size training step in PyTorch, for comparison with `xkd bench step`: two masked autoencoders, two
students with a local view, two teachers on the global view with refinement, MMD, distillation, per-tensor clipping, AdamW
and moving averages. As in xkd, masked tokens are not embedded, and only masked ones are decoded to pixels. This is not part of
the tests. Usage, in an environment with torch:

    bench/pytorch_step.py [--batch N] [--repeats N] [--threads N] [--device cpu|cuda]
                          [--mode eager|compile|bfloat16|compile-bfloat16]

eager is float32; compile is the same through torch.compile; bfloat16 is under autocast. Attention is PyTorch's
scaled_dot_product_attention, AdamW its fused one. bench/compare runs it in turn with xkd on a CPU, scripts/gpu-check on a
GPU."""
import argparse, contextlib, json, time

import torch
import torch.nn as nn
import torch.nn.functional as F

options = argparse.ArgumentParser()
options.add_argument("--batch", type=int, default=8)
options.add_argument("--repeats", type=int, default=3)
options.add_argument("--threads", type=int, default=0)
options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
options.add_argument("--mode", choices=("eager", "compile", "bfloat16", "compile-bfloat16"), default="eager")
options = options.parse_args()
B, REPEATS = options.batch, options.repeats
if options.threads:
    torch.set_num_threads(options.threads)
torch.set_default_device(options.device)
K, D, DEC = 8192, 768, 384
SIDES = {"vid": dict(N=392, P=3072, keep=59, local=72), "aud": dict(N=560, P=64, keep=112, local=140)}


class Block(nn.Module):
    def __init__(s, d, h):
        super().__init__()
        s.h, s.n1, s.n2 = h, nn.LayerNorm(d), nn.LayerNorm(d)
        s.qkv, s.proj, s.fc1, s.fc2 = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d), nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(s, x, probe=False):
        b, n, d = x.shape
        q, k, v = s.qkv(s.n1(x)).view(b, n, 3, s.h, d // s.h).permute(2, 0, 3, 1, 4)
        attn = (q[:, :, :1] @ k.transpose(-2, -1) * (d // s.h) ** -0.5).softmax(-1)[:, :, 0, 1:] if probe else None
        x = x + s.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))
        x = x + s.fc2(F.gelu(s.fc1(s.n2(x))))
        return (x, attn) if probe else x


class Encoder(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.embed, s.cls, s.pos = nn.Linear(c["P"], D), nn.Parameter(torch.zeros(1, 1, D)), nn.Parameter(torch.randn(1, c["N"] + 1, D) * 0.02)
        s.blocks, s.norm = nn.ModuleList(Block(D, 12) for _ in range(12)), nn.LayerNorm(D)

    def forward(s, patches, where, probe=False):
        x = s.embed(patches) + s.pos[0, 1:][where]
        x, attn = torch.cat([(s.cls + s.pos[:, :1]).expand(len(x), -1, -1), x], 1), None
        for i, block in enumerate(s.blocks):
            if probe and i == 11:
                x, attn = block(x, True)
            else:
                x = block(x)
        return s.norm(x), attn


class Head(nn.Module):
    def __init__(s):
        super().__init__()
        s.l1, s.l2, s.l3, s.n = nn.Linear(D, 2048), nn.Linear(2048, 2048), nn.Linear(2048, 256), nn.LayerNorm(2048)
        s.v = nn.Parameter(torch.randn(K, 256))

    def forward(s, x):
        x = F.gelu(s.n(s.l2(F.gelu(s.n(s.l1(x))))))
        return F.layer_norm(F.normalize(s.l3(x)) @ F.normalize(s.v).T, (K,))


class Decoder(nn.Module):
    def __init__(s, c):
        super().__init__()
        s.mid, s.out, s.mask = nn.Linear(D, DEC), nn.Linear(DEC, c["P"]), nn.Parameter(torch.zeros(1, 1, DEC))
        s.pos, s.blocks = nn.Parameter(torch.randn(1, c["N"] + 1, DEC) * 0.02), nn.ModuleList(Block(DEC, 12) for _ in range(4))

    def forward(s, z, order, keep, clip):
        z = s.mid(z)
        x = torch.cat([z[:, 1:], s.mask.expand(len(z), order.shape[1] - keep, -1)], 1)
        x = torch.gather(x, 1, order.argsort(1)[..., None].expand(-1, -1, DEC))
        x = torch.cat([z[:, :1], x], 1) + s.pos
        for block in s.blocks:
            x = block(x)
        masked = order[:, keep:]
        pred = s.out(torch.gather(x[:, 1:], 1, masked[..., None].expand(-1, -1, DEC)))
        target = torch.gather(clip, 1, masked[..., None].expand(-1, -1, clip.shape[2]))
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return ((pred - target) ** 2).mean()


def mmd(x, y):
    k = lambda a, b: sum(torch.exp(-g * d).mean() for d in [torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") ** 2] for g in (1e-3, 1e-2, 0.1, 1, 10, 100, 1000))
    return k(x, x) + k(y, y) - 2 * k(x, y)


def kd(t, s, tt, ts=0.1):
    return -((t / tt).softmax(-1).repeat(2, 1) * (s / ts).log_softmax(-1)).sum(-1).mean()


def refine(f, own, other):
    w = (own * other.mean(-1, keepdim=True) / own.mean(-1, keepdim=True)).mean(1)[..., None]
    r = (w * f).mean(1)
    return r * (f.mean(1).norm(dim=-1, keepdim=True) / r.norm(dim=-1, keepdim=True))


torch.manual_seed(0)
student, teacher = ({m: nn.ModuleDict({"e": Encoder(c), "h": Head()}) for m, c in SIDES.items()} for _ in range(2))
decoder = {m: Decoder(c) for m, c in SIDES.items()}
for m in SIDES:
    teacher[m].requires_grad_(False)
trained = [p for m in SIDES for p in list(student[m].parameters()) + list(decoder[m].parameters())]
clipped = [p for m in SIDES for p in student[m].parameters()]
optimizer = torch.optim.AdamW(trained, 1e-4, (0.9, 0.95), weight_decay=0.3, fused=True)
clips = {m: torch.randn(B, c["N"], c["P"]) for m, c in SIDES.items()}
local = {m: torch.randn(B, c["local"], c["P"]) for m, c in SIDES.items()}


def loss_of():
    logits, recon, features, attention = {}, 0, {}, {}
    with torch.no_grad():
        for m, c in SIDES.items():
            z, attention[m] = teacher[m]["e"](clips[m], torch.arange(c["N"]).expand(B, -1), True)
            features[m] = z[:, 1:]
        t = {m: teacher[m]["h"](refine(features[m], attention[m], attention["aud" if m == "vid" else "vid"])) for m in SIDES}
    for m, c in SIDES.items():
        order = torch.rand(B, c["N"]).argsort(1)
        kept = order[:, : c["keep"]]
        z, _ = student[m]["e"](torch.gather(clips[m], 1, kept[..., None].expand(-1, -1, c["P"])), kept)
        y, _ = student[m]["e"](local[m], torch.arange(c["local"]).expand(B, -1))
        recon = recon + decoder[m](z, order, c["keep"], clips[m]) / 2
        logits[m] = student[m]["h"](torch.cat([z[:, 1:].mean(1), y[:, 1:].mean(1)]))
    align = (mmd(logits["vid"], logits["aud"]) + mmd(t["vid"], t["aud"])) / 2
    distil = (kd(t["vid"], logits["aud"], 0.1) + kd(t["aud"], logits["vid"], 0.07)) / 2
    return (align + distil + 5 * recon) / 7


if options.mode.startswith("compile"):
    loss_of = torch.compile(loss_of)


def step():
    optimizer.zero_grad()
    half = options.mode.endswith("bfloat16")
    mixed = torch.autocast(options.device, torch.bfloat16) if half else contextlib.nullcontext()
    with mixed:
        loss = loss_of()
    loss.backward()
    gradients = [p.grad for p in clipped]
    factors = (0.3 / (torch.stack(torch._foreach_norm(gradients)) + 1e-6)).clamp(max=1)  # without a wait for each
    torch._foreach_mul_(gradients, list(factors.unbind()))
    optimizer.step()
    with torch.no_grad():
        for m in SIDES:
            torch._foreach_lerp_(list(teacher[m].parameters()), list(student[m].parameters()), 0.003)
    return float(loss.detach())


def wait():
    if options.device == "cuda":
        torch.cuda.synchronize()


kind = torch.bfloat16 if options.device == "cuda" and options.mode.endswith("bfloat16") else torch.float32
a, b = torch.randn(4096, 3072, dtype=kind), torch.randn(3072, 3072, dtype=kind)
gemm, times = 1e9, []
for _ in range(5):
    wait(); start = time.perf_counter(); a @ b; wait(); gemm = min(gemm, time.perf_counter() - start)
step()
for _ in range(REPEATS):
    wait(); start = time.perf_counter(); step(); wait(); times.append(time.perf_counter() - start)
print(json.dumps({"s_per_sample": sorted(times)[len(times) // 2] / B, "gemm_gflops": 2 * 4096 * 3072 * 3072 / gemm / 1e9, "torch": torch.__version__, "mode": options.mode, "device": options.device, "threads": torch.get_num_threads()}))
