"""A small decoder over a memory, made of PyTorch's own layers: the whole sequence at once, under a causal mask."""

import torch
from torch import Tensor, nn


class Decoder(nn.Module):
    def __init__(self, words: int = 30, length: int = 8, width: int = 16, heads: int = 2, layers: int = 2) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(length, width)
        layer = nn.TransformerDecoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, layers)
        self.out = nn.Linear(width, words)

    def forward(self, ids: Tensor, memory: Tensor) -> Tensor:
        """ids (B, L) int64, memory (B, M, width); (B, L, words)."""
        x = self.words(ids) + self.positions(torch.arange(ids.shape[1]))
        ahead = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)
        return self.out(self.decoder(x, memory, tgt_mask=ahead))
