"""Batches of images from files, with every random choice a function of the run's seed, the epoch and the place in it.

So a resumed run goes on as if it had never stopped, and the number of worker processes changes nothing.

Origin: written for this project.
Licence: Apache-2.0
"""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor
from paddle.io import DataLoader, Dataset

from paddle_impl.data import load_image

FAILED = -1  # the label that stands for a batch that could not be made


def seed_generators(*key: int) -> None:
    """Seed the generators of Python, numpy and the framework from non-negative integers; another key, other numbers."""
    python, numpy, framework = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(python)
    np.random.seed(numpy)
    paddle.seed(framework)


class EpochBatches(Dataset):
    """The batches of one epoch: number -> (images (N, 3, H, W), labels (N,) int64), numpy arrays.

    images: (path, class index) pairs. batches: for each batch, indices into `images`; an image may come again.
    transform: Pillow RGB image -> tensor (3, H, W). key: integers that, with the number of the batch and the place in
    it, the transform's random numbers are drawn from.
    """

    def __init__(
        self,
        images: Sequence[tuple[Path, int]],
        batches: Sequence[Sequence[int]],
        transform: Callable,
        key: Sequence[int] = (),
    ):
        self.images, self.batches, self.transform, self.key = images, batches, transform, tuple(key)

    def __len__(self) -> int:
        return len(self.batches)

    def path(self, batch: int, place: int) -> Path:
        """The file behind one sample."""
        return self.images[self.batches[batch][place]][0]

    def make(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """One batch; ValueError, naming the file, if an image cannot be read."""
        samples = []
        device = paddle.get_device()
        paddle.set_device("cpu")  # paddle: or the transform computes and draws on the GPU, where a worker does not
        for place, index in enumerate(self.batches[batch]):
            image = load_image(self.images[index][0])
            seed_generators(*self.key, batch, place)
            samples.append(self.transform(image).numpy())
        paddle.set_device(device)
        return np.stack(samples), np.array([self.images[index][1] for index in self.batches[batch]], np.int64)

    def __getitem__(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        # paddle: an error in a worker hangs its DataLoader (3.3.1); marked, it is raised where it can be told.
        try:
            return self.make(batch)
        except Exception:
            return np.zeros(1), np.array([FAILED], np.int64)


def load_batches(dataset: EpochBatches, workers: int = 0, device: str = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
    """The batches in their order, as tensors on `device`, named as the framework does.

    workers: processes that make batches ahead of time; with 0 each is made here when it is due. Raises what making a
    batch raised, when it is due.
    """
    # paddle: without workers its DataLoader makes samples in a thread, which would share the generators with the model.
    loader = (
        DataLoader(dataset, batch_size=None, num_workers=workers) if workers else map(dataset.make, range(len(dataset)))
    )
    for batch, (images, labels) in enumerate(loader):
        if int(labels[0]) == FAILED:
            dataset.make(batch)
        yield tuple(paddle.to_tensor(np.asarray(array), place=device) for array in (images, labels))
