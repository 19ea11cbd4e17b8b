"""A small network that may teach: convolution, batch norm, mean over the map, classifier. Twin of `teacher_paddle`."""

import torch
from torch import nn


class Teacher(nn.Module):
    """(N, 3, H, W) -> (N, num_classes). `seen` is a buffer of whole numbers, which an average must copy."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, num_classes)
        self.register_buffer("seen", torch.zeros(2, dtype=torch.int64))

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def small(num_classes):
    return Teacher(num_classes)


def failing(num_classes):
    """A teacher, no network, whose answers are no numbers from the fifth call on."""
    calls = []

    def answer(images):
        calls.append(1)
        return images.mean((2, 3))[:, :num_classes] * (1.0 if len(calls) < 5 else float("nan"))

    return answer
