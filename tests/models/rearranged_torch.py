"""A token mixer that drops, as one author lays its values out: class token first, batch first."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width=16, tokens=12):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, tokens, width))
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.drop = nn.Dropout(0.2)
        self.norm = nn.LayerNorm(width)
        self.hidden, self.head = nn.Linear(width, 3 * width), nn.Linear(3 * width, 5)

    def forward(self, x):  # (B, N, C)
        x = self.drop(x + self.position)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 4
        mixed = functional.dropout(scores.softmax(-1), 0.3, self.training) @ self.value(x)
        if self.training:  # a sample's whole branch, as drop-path does
            mixed = mixed * mixed.new_empty(x.shape[0], 1, 1).bernoulli_(0.75) / 0.75
        x = x + mixed
        x = self.drop(self.hidden(self.norm(x)).relu())
        return self.head(x[:, 0])
