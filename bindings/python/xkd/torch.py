"""The encoders as PyTorch modules, and clips as a PyTorch data set.

    import xkd.torch
    encoder = xkd.torch.load("runs/first")             # an nn.Module: [B,3,T,H,W] -> [B,width]
    data = xkd.torch.Dataset("videos.jsonl")           # (views, label)

The module is plain PyTorch: it can be trained, moved to a device, and exported. Its features equal those of xkd.Encoder to 1e-5.
"""
from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Union

import torch
import torch.nn.functional as F
import torch.utils.data
from torch import Tensor, nn

from ._handle import Path
from .clip import Reader, Views, list_files
from .encoder import Encoder

__all__ = ["Dataset", "TensorViews", "VisionTransformer", "load"]


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, n, d))


class _Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-5)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-5)
        self.mlp = _Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _Blocks(nn.Module):
    def __init__(self, width: int, depth: int, heads: int):
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class _Embedding(nn.Module):
    def __init__(self, patch: int, width: int):
        super().__init__()
        self.proj = nn.Linear(patch, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class VisionTransformer(nn.Module):
    """An encoder of docs/method.md sections 3 and 4 under its public names.

    forward: clips [B,C,T,H,W] (sound: [B,1,1,mel bands,columns], or [B,1,mel bands,columns]) -> [B,width], or all tokens
    [B,tokens,width] with pool="none". Input sizes other than that of training interpolate the positions.
    """

    def __init__(self, *, width: int, depth: int, heads: int, channels: int, patch: Sequence[int], grid: Sequence[int],
                 cls_token: bool = True, audio: bool = False, pool: str = "mean"):
        super().__init__()
        if pool not in ("mean", "cls", "none") or (pool == "cls" and not cls_token):
            raise ValueError(f"pool={pool!r}: 'mean', 'none', or 'cls' where there is a class token")
        self.patch, self.grid, self.channels = tuple(patch), tuple(grid), channels
        self.audio, self.pool = audio, pool
        size = channels * patch[0] * patch[1] * patch[2]
        tokens = grid[0] * grid[1] * grid[2]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if cls_token else None
        self.enc_pos_embed = nn.Parameter(torch.zeros(1, tokens + int(cls_token), width))
        setattr(self, "patch_embed" if audio else "cuboid_embed", _Embedding(size, width))
        self.encoder = _Blocks(width, depth, heads)
        self.encoder_norm = nn.LayerNorm(width, eps=1e-5)

    def patches(self, x: Tensor) -> Tensor:
        """[B,C,T,H,W] -> [B,tokens,P], the order inside a patch being (t,h,w,c)."""
        b, c, t, h, w = x.shape
        pt, ph, pw = self.patch
        x = x.reshape(b, c, t // pt, pt, h // ph, ph, w // pw, pw)
        return x.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, (t // pt) * (h // ph) * (w // pw), pt * ph * pw * c)

    def positions(self, grid: Sequence[int]) -> Tensor:
        """The patches' positional table for a grid of tokens (docs/method.md section 3)."""
        table = self.enc_pos_embed[:, 1:] if self.cls_token is not None else self.enc_pos_embed
        if tuple(grid) == self.grid:
            return table
        d = table.shape[2]
        scale = [1.0 if n == m else (n + 0.1) / m for n, m in zip(grid, self.grid)]
        if self.audio:
            if grid[1] != self.grid[1]:
                raise ValueError("the frequency side of a spectrogram must be that of training")
            x = table.reshape(1, self.grid[1], self.grid[2], d).permute(0, 3, 1, 2)
            x = F.interpolate(x, scale_factor=(1.0, scale[2]), mode="bicubic", align_corners=False,
                              recompute_scale_factor=False)
            return x.permute(0, 2, 3, 1).reshape(1, -1, d)
        x = table.reshape(1, *self.grid, d).permute(0, 4, 1, 2, 3)
        x = F.interpolate(x, scale_factor=tuple(scale), mode="trilinear", align_corners=False,
                          recompute_scale_factor=False)
        return x.permute(0, 2, 3, 4, 1).reshape(1, -1, d)

    def tokens(self, x: Tensor) -> Tensor:
        """All tokens after encoder_norm, the class token first."""
        if x.dim() == 4:
            x = x.unsqueeze(2)
        for side, patch in zip(x.shape[2:], self.patch):
            if side % patch:
                raise ValueError(f"input {list(x.shape[2:])} is not made of whole patches {list(self.patch)}")
        grid = [side // patch for side, patch in zip(x.shape[2:], self.patch)]
        embed: nn.Module = self.patch_embed if self.audio else self.cuboid_embed  # type: ignore[assignment]
        z = embed(self.patches(x)) + self.positions(grid)
        if self.cls_token is not None:
            first = self.cls_token + self.enc_pos_embed[:, :1]
            z = torch.cat([first.expand(z.shape[0], -1, -1), z], dim=1)
        return self.encoder_norm(self.encoder(z))

    def forward(self, x: Tensor) -> Tensor:
        z = self.tokens(x)
        if self.pool == "none":
            return z
        if self.pool == "cls":
            return z[:, 0]
        return z[:, 1:].mean(1) if self.cls_token is not None else z.mean(1)


def load(model: Union[Path, Encoder], modality: str = "video", *, pool: str = "mean", student: bool = False, heads: int = 0,
         config: Optional[Path] = None,
         settings: Union[Dict[str, object], Sequence[str], None] = None) -> VisionTransformer:
    """The encoder of a run folder or of a model file as a module in evaluation mode, with its weights."""
    encoder = model if isinstance(model, Encoder) else Encoder(
        model, modality=modality, student=student, heads=heads, config=config, settings=settings, threads=1)
    try:
        g = encoder.geometry(modality)
        if not g.width:
            raise ValueError(f"{modality!r}: this encoder has {', '.join(encoder.info)}")
        module = VisionTransformer(width=g.width, depth=g.depth, heads=g.heads, channels=g.channels, patch=list(g.patch),
                                   grid=list(g.grid), cls_token=bool(g.cls_token), audio=modality == "audio", pool=pool)
        weights = {k: torch.from_numpy(v) for k, v in encoder.weights(modality).items() if not k.startswith("head.")}
        module.load_state_dict(weights, strict=True)
    finally:
        if encoder is not model:
            encoder.close()
    return module.eval()


@dataclass(frozen=True)
class TensorViews:
    """xkd.Views as tensors, the global views first."""

    video: List[Tensor]
    audio: List[Tensor]


class Dataset(torch.utils.data.Dataset):
    """The files of a manifest or folder as training sees them: item i is (TensorViews, label).

    Each worker of a DataLoader has its own decoder. Call set_epoch(n) before each epoch to draw other clips and crops. With the
    seed of a run and its whole manifest the views are those of that run. A file that cannot be read raises xkd.DataError.
    transform: called with the xkd.Views, which are numpy arrays; its result replaces the tensors. A DataLoader batches only
        items of one shape, so it needs a transform or a collate_fn of your own.
    """

    def __init__(self, source: Path, split: Optional[str] = None, *, seed: int = 0,
                 settings: Union[Dict[str, object], Sequence[str], None] = None, follow_links: bool = False,
                 transform: Optional[Callable[[Views], object]] = None):
        self.files, self.classes = list_files(source, split, follow_links=follow_links)
        self.seed, self.epoch, self.settings, self.transform = seed, 0, settings, transform
        self._reader: Optional[Reader] = None
        self._owner: Optional[int] = None

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch whose clips and crops are drawn next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.files)

    def __getstate__(self):
        return {**self.__dict__, "_reader": None, "_owner": None}

    def _reader_here(self) -> Reader:
        # A handle that was made before a fork belongs to the parent.
        if self._reader is None or self._owner != os.getpid():
            self._reader, self._owner = Reader(settings=self.settings), os.getpid()
        return self._reader

    def __getitem__(self, i: int):
        if not 0 <= i < len(self.files):
            raise IndexError(i)
        f = self.files[i]
        views = self._reader_here().training_views(f.path, seed=self.seed, epoch=self.epoch, sample=i)
        if self.transform is not None:
            return self.transform(views), f.label
        tensors = TensorViews([torch.from_numpy(v) for v in views.video], [torch.from_numpy(v) for v in views.audio])
        return tensors, f.label
