"""The order in which an epoch shows the images: repeated augmentation, and whole batches only.

Repeated augmentation (arXiv 1901.09335, 1902.05509) as DeiT uses it: each chosen image comes three times in a row, at
the same time to different processes where there are several, each time augmented anew. The sampler follows
timm/data/distributed_sampler.py, which took it from facebookresearch/deit `samplers.py` (Apache-2.0).
Licence: Apache-2.0
"""

import math
from collections.abc import Iterator, Sized

import paddle
from paddle.io import BatchSampler, Sampler

__all__ = ["RepeatAugSampler", "train_batches"]


class RepeatAugSampler(Sampler):
    """Indices into `dataset` for one process of `num_replicas`, shuffled by the epoch's number alone.

    Each image is repeated `num_repeats` times, and the repeats are dealt out in turn. An epoch is cut to 1/num_replicas
    of the data set (rounded down to a multiple of `selected_round`, if it has that many images), so that it is as
    long as without repeats. Call `set_epoch` before each epoch: its number is the seed.

    Raises ValueError if `dataset` is empty or `rank` is none of the replicas.
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int = 1,
        rank: int = 0,
        shuffle: bool = True,
        num_repeats: int = 3,
        selected_round: int = 256,
    ):
        if not len(dataset):
            raise ValueError("no images to sample from")
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank {rank} is none of {num_replicas} replicas (0..{num_replicas - 1})")
        self.count = count = len(dataset)
        self.num_replicas, self.rank = num_replicas, rank
        self.shuffle, self.num_repeats = shuffle, num_repeats
        self.epoch = 0
        dealt = math.ceil(count * num_repeats / num_replicas)  # to each process, were an epoch not cut
        if selected_round and count >= selected_round:
            selected = count // selected_round * selected_round // num_replicas
        else:
            selected = math.ceil(count / num_replicas)
        self.selected = min(selected, dealt)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = self._permutation() if self.shuffle else list(range(self.count))
        repeats = self.count * self.num_repeats
        for turn in range(self.selected):
            # The deal goes round again where it does not come out even.
            place = (self.rank + turn * self.num_replicas) % repeats
            yield order[place // self.num_repeats]

    def __len__(self) -> int:
        return self.selected

    def _permutation(self) -> list[int]:
        # paddle: randperm takes no generator of its own. The global one is seeded for this draw and then put back, so
        # that the order depends on the epoch alone and dropout's draws go on as if nothing had happened.
        states = [(device, paddle.get_rng_state(device)) for device in dict.fromkeys(("cpu", paddle.get_device()))]
        try:
            paddle.seed(self.epoch)
            return paddle.randperm(self.count).tolist()
        finally:
            for device, state in states:
                paddle.set_rng_state(state, device)


def train_batches(sampler: RepeatAugSampler, batch_size: int) -> BatchSampler:
    """Lists of `batch_size` indices, for a `DataLoader`'s `batch_sampler`; the ragged last one is dropped.

    Mixup pairs a batch with its reverse, and an update of fewer images would be of another size. Raises ValueError if
    not one batch is whole.
    """
    if len(sampler) < batch_size:
        raise ValueError(f"an epoch of {len(sampler)} images has no whole batch of {batch_size}; take smaller batches")
    return BatchSampler(sampler=sampler, batch_size=batch_size, drop_last=True)
