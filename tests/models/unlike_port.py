"""The network of unlike_reference.py as another author writes it: other names, order and tree, q, k and v apart.

`Net("")` is right. Any other name puts in the mistake of the line that is marked with it.
"""

import math

import paddle
import paddle.nn.functional as F
from paddle import nn


class SelfAttention(nn.Layer):
    def __init__(self, dim, heads, bug):
        super().__init__()
        self.heads, self.bug = heads, bug
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(0.1)

    def split(self, x):
        return x.reshape([x.shape[0], x.shape[1], self.heads, -1]).transpose([0, 2, 1, 3])

    def forward(self, x):
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        if self.bug == "scale":
            scores = paddle.matmul(q, k, transpose_y=True) / math.sqrt(x.shape[-1])  # bug: scale
        else:
            scores = paddle.matmul(q, k, transpose_y=True) / math.sqrt(q.shape[-1])
        if self.bug == "axis":
            weights = F.softmax(scores, axis=-2)  # bug: axis
        else:
            weights = F.softmax(scores, axis=-1)
        y = paddle.matmul(self.dropout(weights), v).transpose([0, 2, 1, 3]).reshape(x.shape)
        return self.out(y)


class Layer(nn.Layer):
    def __init__(self, dim, heads, bug):
        super().__init__()
        self.bug = bug
        self.attention = SelfAttention(dim, heads, bug)
        self.intermediate = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(2 * dim, dim)
        if bug == "epsilon":
            self.ln_attention = nn.LayerNorm(dim, epsilon=1e-5)  # bug: epsilon
        else:
            self.ln_attention = nn.LayerNorm(dim, epsilon=1e-6)
        self.ln_output = nn.LayerNorm(dim, epsilon=1e-6)

    def forward(self, x):
        x = x + self.attention(self.ln_attention(x))
        if self.bug == "gelu":
            y = F.gelu(self.intermediate(self.ln_output(x)), approximate=True)  # bug: gelu
        else:
            y = F.gelu(self.intermediate(self.ln_output(x)))
        if self.bug == "detach":
            x = x.detach()  # bug: detach
        return x + self.output(y)


class Net(nn.Layer):
    def __init__(self, bug=""):
        super().__init__()
        self.bug = bug
        self.position_embeddings = self.create_parameter([1, 40, 16])
        self.conv_in = nn.Conv2D(3, 8, 3, 2, 1, bias_attr=False)
        if bug == "momentum":
            self.norm_in = nn.BatchNorm2D(8, momentum=0.1)  # bug: momentum
        else:
            self.norm_in = nn.BatchNorm2D(8)
        self.shortcut = nn.Conv2D(8, 16, 1, 2)
        self.conv = nn.Conv2D(8, 16, 3, 2, 1)
        self.norm_conv = nn.BatchNorm2D(16)
        self.encoder = nn.LayerList([Layer(16, 4, bug if last else "") for last in (False, True)])
        self.final = nn.LayerNorm(16, epsilon=1e-6)
        self.classifier = nn.Linear(16, 7)

    def forward(self, x):
        x = self.norm_in(self.conv_in(x))  # bug: relu
        if self.bug != "relu":
            x = F.relu(x)
        if self.bug == "residual":
            x = F.relu(self.norm_conv(self.conv(x) + self.shortcut(x)))  # bug: residual
        else:
            x = F.relu(self.norm_conv(self.conv(x)) + self.shortcut(x))
        x = x.flatten(2).transpose([0, 2, 1])
        if self.bug == "position":
            x = x + self.position_embeddings[:, -x.shape[1] :]  # bug: position
        else:
            x = x + self.position_embeddings[:, : x.shape[1]]
        for layer in self.encoder:
            x = layer(x)
        if self.bug == "token":
            return self.classifier(self.final(x)[:, 0])  # bug: token
        return self.classifier(self.final(x).mean(1))
