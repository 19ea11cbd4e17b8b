"""The port of `encoder_torch`, made of Paddle's own layers."""

import paddle
from paddle import Tensor, nn


class Encoder(nn.Layer):
    def __init__(self, words: int = 50, length: int = 12, width: int = 16, heads: int = 2, layers: int = 2) -> None:
        super().__init__()
        self.word_embeddings, self.position_embeddings = nn.Embedding(words, width), nn.Embedding(length, width)
        self.layer_norm = nn.LayerNorm(width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, layers)
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layer_norm(self.word_embeddings(ids) + self.position_embeddings(paddle.arange(ids.shape[1])))
        x = self.encoder(x, mask.unsqueeze([1, 2]))  # paddle: true is what may be looked at; (B, 1, 1, L)
        return x, self.head(paddle.tanh(self.pooler(x[:, 0])))
