"""A small decoder as people write them: rotary positions, a mask with infinities, tables in buffers, a loop."""

import torch
from torch import nn


def rotated(x, base=100.0):
    count, size = x.shape[-2:]
    frequencies = base ** (-torch.arange(0, size, 2, dtype=x.dtype) / size)
    angles = torch.arange(count, dtype=x.dtype)[:, None] * frequencies[None]
    cosines, sines = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
    first, second = x.chunk(2, -1)
    return x * cosines + torch.cat([-second, first], -1) * sines


class Attention(nn.Module):
    def __init__(self, dim, length):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.table = nn.Parameter(torch.zeros(2 * length - 1))
        places = torch.arange(length)
        self.register_buffer("index", places[:, None] - places[None] + length - 1)

    def forward(self, x, allowed=None):
        q, k, v = self.query(x), self.key(x), self.value(x)
        q, k = rotated(q), rotated(k)
        scores = q @ k.transpose(-2, -1) / x.shape[-1] ** 0.5
        scores = scores + self.table[self.index.reshape(-1)].reshape(self.index.shape)
        if allowed is not None:
            scores = scores + allowed
        return torch.softmax(scores, -1) @ v


class Net(nn.Module):
    def __init__(self, words=30, dim=8, length=5):
        super().__init__()
        self.embed = nn.Embedding(words, dim, padding_idx=0)
        self.attention = Attention(dim, length)
        self.cell = nn.Linear(2 * dim, dim)
        self.head = nn.Linear(dim, words)
        allowed = torch.triu(torch.full((length, length), float("-inf")), 1)
        self.register_buffer("allowed", allowed, persistent=False)

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.attention(x, self.allowed)
        state, states = torch.zeros_like(x[:, 0]), []
        for time in range(x.shape[1]):
            state = torch.tanh(self.cell(torch.cat([x[:, time], state], -1)))
            states.append(state)
        return self.head(torch.stack(states, 1).reshape(x.shape))
