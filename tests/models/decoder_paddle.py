"""The port of `decoder_torch` as it generates: one word after another, keys and values kept in Paddle's cache."""

import paddle
from paddle import Tensor, nn


class Decoder(nn.Layer):
    def __init__(self, words: int = 30, length: int = 8, width: int = 16, heads: int = 2, layers: int = 2) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(length, width)
        layer = nn.TransformerDecoderLayer(width, heads, 4 * width, dropout=0.0)
        self.decoder = nn.TransformerDecoder(layer, layers)
        self.out = nn.Linear(width, words)

    def forward(self, ids: Tensor, memory: Tensor) -> Tensor:
        x = self.words(ids) + self.positions(paddle.arange(ids.shape[1]))
        cache, steps = self.decoder.gen_cache(memory), []
        for place in range(ids.shape[1]):
            step, cache = self.decoder(x[:, place : place + 1], memory, None, None, cache)
            steps.append(step)
        return self.out(paddle.concat(steps, axis=1))
