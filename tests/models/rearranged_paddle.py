"""The same mixer with its tokens before its batch, and its class token last."""

import paddle
from paddle import nn
from paddle.nn import functional


class Mixer(nn.Layer):
    rate = 0.3

    def __init__(self, width=16, tokens=12):
        super().__init__()
        self.token = self.create_parameter((1, 1, width))
        self.position = self.create_parameter((1, tokens, width))
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.drop = nn.Dropout(0.2)
        self.norm = nn.LayerNorm(width)
        self.hidden, self.head = nn.Linear(width, 3 * width), nn.Linear(3 * width, 5)

    def forward(self, x):  # (B, N, C)
        x = self.drop((x + self.position).transpose([1, 0, 2]))  # (N, B, C)
        x = paddle.concat([x, self.token.expand([1, x.shape[1], -1])], 0)
        query, key, value = (layer(x).transpose([1, 0, 2]) for layer in (self.query, self.key, self.value))
        scores = functional.softmax(query @ key.transpose([0, 2, 1]) / 4, -1)
        mixed = (functional.dropout(scores, self.rate, training=self.training) @ value).transpose([1, 0, 2])
        if self.training:
            mixed = mixed * paddle.bernoulli(paddle.full([1, x.shape[1], 1], 0.75, x.dtype)) / 0.75
        x = x + mixed
        x = self.drop(functional.relu(self.hidden(self.norm(x))))
        return self.head(x[-1])


class AnotherRate(Mixer):
    """Keeps half of its attention, and scales as if it were."""

    rate = 0.5
