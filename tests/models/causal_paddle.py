"""The port of `causal_torch`."""

import paddle
import paddle.nn.functional as F
from paddle import nn


def rotated(x, base=100.0):
    count, size = x.shape[-2:]
    frequencies = base ** (-paddle.arange(0, size, 2, dtype=x.dtype) / size)
    angles = paddle.arange(count, dtype=x.dtype).unsqueeze(1) * frequencies.unsqueeze(0)
    cosines, sines = paddle.concat([angles.cos()] * 2, -1), paddle.concat([angles.sin()] * 2, -1)
    first, second = x.chunk(2, -1)
    return x * cosines + paddle.concat([-second, first], -1) * sines


class Attention(nn.Layer):
    def __init__(self, dim, length):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.table = self.create_parameter([2 * length - 1])
        places = paddle.arange(length)
        index = places.unsqueeze(1) - places.unsqueeze(0) + length - 1
        self.register_buffer("index", index)

    def forward(self, x, allowed=None):
        q, k, v = self.query(x), self.key(x), self.value(x)
        q, k = rotated(q), rotated(k)
        scores = q @ k.transpose([0, 2, 1]) / x.shape[-1] ** 0.5
        scores = scores + self.table[self.index.reshape([-1])].reshape(self.index.shape)
        if allowed is not None:
            scores = scores + allowed
        return F.softmax(scores, -1) @ v


class Net(nn.Layer):
    def __init__(self, words=30, dim=8, length=5):
        super().__init__()
        self.embed = nn.Embedding(words, dim, padding_idx=0)
        self.attention = Attention(dim, length)
        self.cell = nn.Linear(2 * dim, dim)
        self.head = nn.Linear(dim, words)
        allowed = paddle.triu(paddle.full([length, length], float("-inf")), 1)
        self.register_buffer("allowed", allowed, persistable=False)

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.attention(x, self.allowed)
        state, states = paddle.zeros_like(x[:, 0]), []
        for time in range(x.shape[1]):
            state = paddle.tanh(self.cell(paddle.concat([x[:, time], state], -1)))
            states.append(state)
        return self.head(paddle.stack(states, 1).reshape(x.shape))
