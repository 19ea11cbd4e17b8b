"""The order in which an epoch shows the images: repeated augmentation, and whole batches only.

Repeated augmentation (arXiv 1901.09335, 1902.05509) as DeiT uses it: each chosen image comes three times in a row, at
the same time to different processes where there are several, each time augmented anew. The sampler is
timm/data/distributed_sampler.py, which took it from facebookresearch/deit `samplers.py`.
Licence: Apache-2.0
"""

from collections.abc import Sized

import timm.data.distributed_sampler
from torch.utils.data import BatchSampler

__all__ = ["RepeatAugSampler", "train_batches"]


class RepeatAugSampler(timm.data.distributed_sampler.RepeatAugSampler):
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
        super().__init__(dataset, num_replicas, rank, shuffle, num_repeats, selected_round)


def train_batches(sampler: RepeatAugSampler, batch_size: int) -> BatchSampler:
    """Lists of `batch_size` indices, for a `DataLoader`'s `batch_sampler`; the ragged last one is dropped.

    Mixup pairs a batch with its reverse, and an update of fewer images would be of another size. Raises ValueError if
    not one batch is whole.
    """
    if len(sampler) < batch_size:
        raise ValueError(f"an epoch of {len(sampler)} images has no whole batch of {batch_size}; take smaller batches")
    return BatchSampler(sampler, batch_size, drop_last=True)
