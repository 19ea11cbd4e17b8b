"""PiT, the Pooling-based Vision Transformer, in PyTorch: the reference.

Paper: "Rethinking Spatial Dimensions of Vision Transformers", https://arxiv.org/abs/2103.16302
Origin: written after the official code, https://github.com/naver-ai/pit (`pit.py`), Apache-2.0, Copyright 2021-present
NAVER Corp.; block, attention and MLP after timm 1.0.31 (`models/vision_transformer.py`, `layers/`), Apache-2.0.
Licence: Apache-2.0

State-dict keys are the official checkpoints'. Logits and gradients equal those of timm's `pit_*_224` bit for bit.
"""

import torch
from torch import nn


def layer_norm(dim):
    """LayerNorm over `dim` channels. Every one in PiT has this epsilon (official `pit.py`); the framework's is 1e-5."""
    return nn.LayerNorm(dim, eps=1e-6)


class DropPath(nn.Module):
    """Stochastic depth: in training, zeroes a whole residual branch for a sample, with probability `drop_prob`.

    One draw for each sample, whatever the rank of x: (B, ...) -> (B, ...). Survivors are divided by the probability of
    survival unless `scale_by_keep` is false. After timm `layers/drop.py`; "Deep Networks with Stochastic Depth",
    https://arxiv.org/abs/1603.09382
    """

    def __init__(self, drop_prob=0.0, scale_by_keep=True):
        super().__init__()
        self.drop_prob = drop_prob
        self.scale_by_keep = scale_by_keep

    def forward(self, x):
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep_prob = 1 - self.drop_prob
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep_prob)  # (B, 1, ..., 1)
        if keep_prob > 0.0 and self.scale_by_keep:
            mask = mask / keep_prob
        return x * mask

    def extra_repr(self):
        return f"drop_prob={self.drop_prob:.3f}"


class Attention(nn.Module):
    """Multi-head self-attention over tokens, (B, N, C) -> (B, N, C).

    Written out rather than fused, so that its scores and its dropout can be recorded.
    """

    def __init__(self, dim, num_heads, attn_drop=0.0, proj_drop=0.0):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # each (B, heads, N, head_dim)
        q = q * self.scale  # before the product, as timm does: the order of rounding is part of the reference
        attn = q @ k.transpose(-2, -1)  # (B, heads, N, N)
        attn = attn.softmax(dim=-1)
        attn = self.attn_drop(attn)
        x = (attn @ v).transpose(1, 2).reshape(B, N, C)  # (B, heads, N, head_dim) -> (B, N, C)
        return self.proj_drop(self.proj(x))


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them, on every token: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim, hidden_dim, drop=0.0):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x):
        x = self.drop1(self.act(self.fc1(x)))  # (B, N, hidden_dim)
        return self.drop2(self.fc2(x))


class Block(nn.Module):
    """Pre-norm transformer block, (B, N, C) -> (B, N, C)."""

    def __init__(self, dim, num_heads, mlp_ratio, drop=0.0, attn_drop=0.0, drop_path=0.0):
        super().__init__()
        self.norm1 = layer_norm(dim)
        self.attn = Attention(dim, num_heads, attn_drop, drop)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = layer_norm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x):
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        x = x + self.drop_path2(self.mlp(self.norm2(x)))
        return x


class Transformer(nn.Module):
    """One stage: blocks of one width over the class tokens and the flattened map.

    `drop_path` holds one rate for each block. forward(x, cls_tokens): (B, C, H, W), (B, T, C) -> the same shapes.
    """

    def __init__(self, base_dim, depth, heads, mlp_ratio, drop_rate, attn_drop_rate, drop_path):
        super().__init__()
        self.blocks = nn.ModuleList(
            [Block(base_dim * heads, heads, mlp_ratio, drop_rate, attn_drop_rate, drop_path[i]) for i in range(depth)]
        )

    def forward(self, x, cls_tokens):
        B, C, H, W = x.shape
        T = cls_tokens.shape[1]
        x = x.flatten(2).transpose(1, 2)  # (B, HW, C)
        x = torch.cat((cls_tokens, x), dim=1)  # (B, T + HW, C)
        for block in self.blocks:
            x = block(x)
        cls_tokens, x = x[:, :T], x[:, T:]
        x = x.transpose(1, 2).reshape(B, C, H, W)
        return x, cls_tokens


class ConvHeadPooling(nn.Module):
    """Pooling between stages: a strided depthwise convolution for the map, a linear layer for the class tokens.

    forward(x, cls_tokens): (B, C, H, W), (B, T, C) -> (B, D, ceil(H / stride), ceil(W / stride)), (B, T, D), where
    stride is even.
    """

    def __init__(self, in_dim, out_dim, stride):
        super().__init__()
        self.conv = nn.Conv2d(in_dim, out_dim, stride + 1, stride=stride, padding=stride // 2, groups=in_dim)
        self.fc = nn.Linear(in_dim, out_dim)

    def forward(self, x, cls_tokens):
        return self.conv(x), self.fc(cls_tokens)


class ConvEmbedding(nn.Module):
    """Overlapping patches to embeddings: (B, in_chans, H, W) -> (B, dim, grid height, grid width); no padding."""

    def __init__(self, in_chans, dim, patch_size, stride):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, dim, patch_size, stride=stride)

    def forward(self, x):
        return self.conv(x)


class PoolingTransformer(nn.Module):
    """PiT: (B, in_chans, H, W) of the default dtype -> logits (B, num_classes), or features (B, D) if num_classes is 0.

    `image_size` is an int or (height, width), in pixels. `base_dims` (width of one head), `depth` (blocks) and `heads`
    hold one value for each stage. `drop_rate` serves the position embedding, the attention's projection and the MLP;
    `drop_path_rate` is the limit that the rates of the blocks grow towards.

    Raises ValueError if an image is smaller than a patch, or if the stages are not described alike.
    """

    num_tokens = 1

    def __init__(
        self,
        image_size,
        patch_size,
        stride,
        base_dims,
        depth,
        heads,
        mlp_ratio,
        num_classes=1000,
        in_chans=3,
        attn_drop_rate=0.0,
        drop_rate=0.0,
        drop_path_rate=0.0,
    ):
        super().__init__()
        if not len(base_dims) == len(depth) == len(heads):
            raise ValueError(f"one value a stage is needed: base_dims={base_dims}, depth={depth}, heads={heads}")
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if min(self.image_size) < patch_size:
            raise ValueError(f"image_size={self.image_size} is smaller than patch_size={patch_size}")
        self.num_classes = num_classes
        grid = [(size - patch_size) // stride + 1 for size in self.image_size]
        dims = [base_dim * head for base_dim, head in zip(base_dims, heads, strict=True)]
        self.embed_dim = dims[-1]

        self.pos_embed = nn.Parameter(torch.empty(1, dims[0], *grid))
        self.cls_token = nn.Parameter(torch.empty(1, self.num_tokens, dims[0]))
        self.patch_embed = ConvEmbedding(in_chans, dims[0], patch_size, stride)
        self.pos_drop = nn.Dropout(drop_rate)

        # The official schedule: block i of n has rate * i / n, so that the last block stays below the full rate.
        # timm's reaches it (linspace from 0 to rate); the two differ by up to rate / n.
        drop_path = [drop_path_rate * i / sum(depth) for i in range(sum(depth))]
        self.transformers = nn.ModuleList()
        self.pools = nn.ModuleList()
        for stage in range(len(depth)):
            first = sum(depth[:stage])
            rates = drop_path[first : first + depth[stage]]
            self.transformers.append(
                Transformer(base_dims[stage], depth[stage], heads[stage], mlp_ratio, drop_rate, attn_drop_rate, rates)
            )
            if stage + 1 < len(depth):
                self.pools.append(ConvHeadPooling(dims[stage], dims[stage + 1], stride=2))
        self.norm = layer_norm(dims[-1])
        self.head = self._classifier(num_classes)

        # Only these two; linear layers and convolutions keep the framework's default, as in the official code.
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def _classifier(self, num_classes):
        if num_classes == 0:
            return nn.Identity()
        # A head put on later must be where the model is, and of its type.
        return nn.Linear(self.embed_dim, num_classes).to(self.cls_token)

    def no_weight_decay(self):
        """Names of the parameters that weight decay must leave alone, besides biases and norms."""
        return {"pos_embed", "cls_token"}

    def get_classifier(self):
        """The head of the class token, also for a distilled model (as the official code; timm returns both)."""
        return self.head

    def reset_classifier(self, num_classes):
        """Put on a new, freshly initialised head; 0 gives features instead of logits."""
        self.num_classes = num_classes
        self.head = self._classifier(num_classes)

    def forward_features(self, x):
        """Normalised class tokens, (B, in_chans, H, W) -> (B, num_tokens, D); ValueError if (H, W) differ."""
        if tuple(x.shape[2:]) != self.image_size:
            raise ValueError(
                f"input of size {tuple(x.shape[2:])} for a model built with image_size={self.image_size}: "
                "resize the images, or build the model with their size"
            )
        x = self.patch_embed(x)  # (B, C, grid height, grid width)
        x = self.pos_drop(x + self.pos_embed)
        cls_tokens = self.cls_token.expand(x.shape[0], -1, -1)  # (B, num_tokens, C)
        for stage, pool in enumerate(self.pools):  # the last stage has none
            x, cls_tokens = self.transformers[stage](x, cls_tokens)
            x, cls_tokens = pool(x, cls_tokens)
        _, cls_tokens = self.transformers[-1](x, cls_tokens)
        return self.norm(cls_tokens)

    def forward(self, x):
        return self.head(self.forward_features(x)[:, 0])


class DistilledPoolingTransformer(PoolingTransformer):
    """PiT with a distillation token and a head for it, trained as DeiT is (https://arxiv.org/abs/2012.12877).

    In training it returns both heads' logits (x_cls, x_dist), each (B, num_classes); in evaluation their mean.
    """

    num_tokens = 2

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.head_dist = self._classifier(self.num_classes)

    def reset_classifier(self, num_classes):
        """Put on two new, freshly initialised heads; 0 gives features instead of logits."""
        super().reset_classifier(num_classes)
        self.head_dist = self._classifier(num_classes)

    def forward(self, x):
        cls_tokens = self.forward_features(x)
        x_cls, x_dist = self.head(cls_tokens[:, 0]), self.head_dist(cls_tokens[:, 1])
        if self.training:
            return x_cls, x_dist
        return (x_cls + x_dist) / 2


# Source of the numbers: the official `pit.py`.
_PATCH_16 = {"image_size": 224, "patch_size": 16, "stride": 8, "depth": (2, 6, 4), "mlp_ratio": 4}
_PATCH_14 = {"image_size": 224, "patch_size": 14, "stride": 7, "depth": (3, 6, 4), "mlp_ratio": 4}
_PLAIN = {
    "pit_ti": _PATCH_16 | {"base_dims": (32, 32, 32), "heads": (2, 4, 8)},
    "pit_xs": _PATCH_16 | {"base_dims": (48, 48, 48), "heads": (2, 4, 8)},
    "pit_s": _PATCH_16 | {"base_dims": (48, 48, 48), "heads": (3, 6, 12)},
    "pit_b": _PATCH_14 | {"base_dims": (64, 64, 64), "heads": (4, 8, 16)},
}
VARIANTS = {name: hyper | {"distilled": False} for name, hyper in _PLAIN.items()} | {
    f"{name}_distilled": hyper | {"distilled": True} for name, hyper in _PLAIN.items()
}


def _build(variant, pretrained, kwargs):
    hyper = VARIANTS[variant] | kwargs
    cls = DistilledPoolingTransformer if hyper.pop("distilled") else PoolingTransformer
    model = cls(**hyper)
    if pretrained:
        from torch_ref.weights import load_pretrained  # here, because building a model needs neither hub nor files

        load_pretrained(model, variant, pretrained)
    return model


def pit_ti(pretrained=False, **kwargs):
    """PiT-Ti, 4.9 M parameters. `pretrained`: False, True (from the hub), or a path; `kwargs` override VARIANTS."""
    return _build("pit_ti", pretrained, kwargs)


def pit_xs(pretrained=False, **kwargs):
    """PiT-XS, 10.6 M parameters; arguments as `pit_ti`."""
    return _build("pit_xs", pretrained, kwargs)


def pit_s(pretrained=False, **kwargs):
    """PiT-S, 23.5 M parameters; arguments as `pit_ti`."""
    return _build("pit_s", pretrained, kwargs)


def pit_b(pretrained=False, **kwargs):
    """PiT-B, 73.8 M parameters; arguments as `pit_ti`."""
    return _build("pit_b", pretrained, kwargs)


def pit_ti_distilled(pretrained=False, **kwargs):
    """PiT-Ti with a distillation token; arguments as `pit_ti`."""
    return _build("pit_ti_distilled", pretrained, kwargs)


def pit_xs_distilled(pretrained=False, **kwargs):
    """PiT-XS with a distillation token; arguments as `pit_ti`."""
    return _build("pit_xs_distilled", pretrained, kwargs)


def pit_s_distilled(pretrained=False, **kwargs):
    """PiT-S with a distillation token; arguments as `pit_ti`."""
    return _build("pit_s_distilled", pretrained, kwargs)


def pit_b_distilled(pretrained=False, **kwargs):
    """PiT-B with a distillation token; arguments as `pit_ti`."""
    return _build("pit_b_distilled", pretrained, kwargs)
