"""A model whose parameters are loaded next is built without drawing them; nothing else of it changes."""

import torch

from align.sides.torch_initial import Undrawn


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 4)
        self.norm = torch.nn.LayerNorm(4)
        self.register_buffer("noise", torch.rand(4))
        self.unit = torch.nn.Parameter(self.linear.weight / self.linear.weight.norm())


def built(context=None):
    torch.manual_seed(0)
    with context or torch.no_grad():
        return dict(Net().state_dict())


def test_only_what_is_drawn_for_parameters_is_left_out():
    usual, undrawn = built(), built(Undrawn())
    assert usual.keys() == undrawn.keys()
    for name in usual:
        assert usual[name].shape == undrawn[name].shape
    assert torch.equal(usual["norm.weight"], undrawn["norm.weight"])
    assert len(set(usual["linear.weight"].flatten().tolist())) == 12
    assert len(set(undrawn["linear.weight"].flatten().tolist())) == 1
    assert len(set(undrawn["noise"].tolist())) == 4
    assert undrawn["unit"].isfinite().all()
