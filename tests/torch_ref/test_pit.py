"""The reference is trusted because it is timm's PiT, bit for bit."""

import json

import pytest

# Our weights go into timm's model through timm's own filter for official checkpoints: that also proves our keys official.
COMPARE = """
import json, re, sys
import timm, torch
from timm.layers import set_fused_attn
from timm.models.pit import checkpoint_filter_fn
import torch_ref.pit as pit

torch.set_num_threads(1)
torch.manual_seed(0)
set_fused_attn(False)  # written out, as ours is: scale applied to q before the product


def official(name):
    return re.sub(r"transformers\\.(\\d+)\\.pool\\.", lambda match: f"pools.{int(match[1]) - 1}.", name)


def outputs_and_gradients(model, images, training):
    model.train(training).zero_grad()
    outputs = model(images)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    torch.manual_seed(1)
    sum((output * torch.randn_like(output)).sum() for output in outputs).backward()
    gradients = {official(name): parameter.grad for name, parameter in model.named_parameters()}
    return outputs, gradients


def compare(variant, training=False, wrong=False):
    ours = getattr(pit, variant)()
    theirs = timm.create_model(f"{variant}_224", pretrained=False)
    theirs.load_state_dict(checkpoint_filter_fn(ours.state_dict(), theirs))
    if training and "distilled" in variant:
        theirs.set_distilled_training(True)
    if wrong:
        ours.transformers[2].blocks[3].norm2.eps = 1e-5
    images = torch.randn(2, 3, 224, 224)
    (outputs, gradients), (expected, expected_gradients) = (
        outputs_and_gradients(model, images, training) for model in (ours, theirs)
    )
    return {
        "outputs": len(outputs),
        "scale": min(float(output.std()) for output in outputs),
        "different_outputs": [i for i, pair in enumerate(zip(outputs, expected, strict=True)) if not torch.equal(*pair)],
        "gradients": len(gradients),
        "zero_gradients": [name for name, value in gradients.items() if not value.any()],
        "different_gradients": [
            name for name in sorted({*gradients, *expected_gradients})
            if not torch.equal(gradients[name], expected_gradients[name])
        ],
    }


print(json.dumps([compare(*json.loads(arguments)) for arguments in sys.argv[1:]]))
"""
TENSORS = {"pit_ti": 156, "pit_xs": 156, "pit_s": 156, "pit_b": 168}
SLOW = pytest.mark.slow  # 74 million parameters: ten seconds and 2 GiB


@pytest.mark.parametrize("variant", ["pit_ti", "pit_xs", "pit_s", pytest.param("pit_b", marks=SLOW)])
def test_logits_and_gradients_are_timms_to_the_bit(run_python, variant):
    runs = [(variant, False), (f"{variant}_distilled", False), (f"{variant}_distilled", True)]
    results = json.loads(run_python(COMPARE, *map(json.dumps, runs)).stdout)
    for (name, training), result in zip(runs, results, strict=True):
        assert result["outputs"] == (2 if training else 1)
        assert result["scale"] > 0.1, f"{name}: logits near zero would show nothing"
        assert result["different_outputs"] == [], name
        assert result["gradients"] == TENSORS[variant] + (2 if "distilled" in name else 0)
        assert result["zero_gradients"] == [], name
        assert result["different_gradients"] == [], name


def test_one_wrong_epsilon_is_not_equal_to_the_bit(run_python):
    (result,) = json.loads(run_python(COMPARE, json.dumps(("pit_ti", False, True))).stdout)
    assert result["different_outputs"] == [0]
    assert "transformers.0.blocks.0.norm1.weight" in result["different_gradients"]


def test_drop_path_is_timms_for_the_same_draws(run_python):
    code = """
import torch
from timm.layers import DropPath as Theirs
from torch_ref.pit import DropPath as Ours

x = torch.randn(64, 5, 3)
for arguments in ((0.3,), (0.3, False), (1.0,), (0.0,)):
    results = []
    for module in (Ours(*arguments), Theirs(*arguments)):
        torch.manual_seed(2)
        results.append(module(x))
    print(torch.equal(*results))
"""
    assert run_python(code).stdout.split() == ["True"] * 4


def test_pretrained_hands_variant_and_source_to_the_loader(run_python):
    code = """
import torch_ref.pit as pit, torch_ref.weights as weights

weights.load_pretrained = lambda model, variant, source: print(type(model).__name__, variant, source)
pit.pit_ti(pretrained="some/file.pth", image_size=32)
pit.pit_xs_distilled(pretrained=True, image_size=32)
pit.pit_s(image_size=32)
"""
    lines = run_python(code).stdout.splitlines()
    assert lines == [
        "PoolingTransformer pit_ti some/file.pth",
        "DistilledPoolingTransformer pit_xs_distilled True",
    ]
