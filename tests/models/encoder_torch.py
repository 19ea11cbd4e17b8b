"""A small encoder in the manner of BERT, made of PyTorch's own layers."""

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    def __init__(self, words: int = 50, length: int = 12, width: int = 16, heads: int = 2, layers: int = 2) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers)
        self.pooler, self.classifier = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, L) int64, mask (B, L) bool, true where there is a word."""
        x = self.norm(self.words(ids) + self.positions(torch.arange(ids.shape[1])))
        x = self.encoder(x, src_key_padding_mask=~mask)  # (B, L, width)
        return x, self.classifier(torch.tanh(self.pooler(x[:, 0])))
