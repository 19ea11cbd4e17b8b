"""The reference is trusted because it is timm's PiT, bit for bit."""

import json

import pytest

# Our weights enter timm's model through timm's own filter for official checkpoints: that proves our keys official.
COMPARE = """
import json, re, sys
import timm, torch
from timm.layers import DropPath, set_fused_attn
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
        "different_outputs": [i for i, output in enumerate(outputs) if not torch.equal(output, expected[i])],
        "expected_outputs": len(expected),
        "gradients": len(gradients),
        "zero_gradients": [name for name, value in gradients.items() if not value.any()],
        "different_gradients": [
            name for name in sorted({*gradients, *expected_gradients})
            if not torch.equal(gradients[name], expected_gradients[name])
        ],
    }


def drop_paths_agree(*arguments):
    results = []
    for module in (pit.DropPath(*arguments), DropPath(*arguments)):
        torch.manual_seed(2)
        results.append(module(torch.arange(1.0, 961.0).reshape(64, 5, 3)))
    return torch.equal(*results)


runs = [compare(*json.loads(arguments)) for arguments in sys.argv[1:]]
drop_paths = [drop_paths_agree(*arguments) for arguments in ((0.3,), (0.3, False), (1.0,), (0.0,))]
print(json.dumps([runs, drop_paths]))
"""
# variant, training mode, one epsilon wrong
RUNS = [
    ("pit_ti", False),
    ("pit_ti_distilled", False),
    ("pit_ti_distilled", True),
    ("pit_xs", False),
    ("pit_xs_distilled", True),
    ("pit_s", False),
    ("pit_s_distilled", True),
    ("pit_ti", False, True),
]


def compare(run_python, runs):
    results, drop_paths = json.loads(run_python(COMPARE, *map(json.dumps, runs)).stdout)
    return dict(zip(runs, results, strict=True)), drop_paths


@pytest.fixture(scope="module")
def compared(run_python):
    return compare(run_python, RUNS)


def assert_equal_to_the_bit(run, result):
    variant, training = run
    distilled = variant.endswith("_distilled")
    blocks = 13 if variant.startswith("pit_b") else 12
    assert result["outputs"] == result["expected_outputs"] == (2 if distilled and training else 1)
    assert result["scale"] > 0.1, "logits near zero would show nothing"
    assert result["different_outputs"] == []
    assert result["gradients"] == 12 * blocks + (18 if distilled else 16)
    assert result["zero_gradients"] == []
    assert result["different_gradients"] == []


@pytest.mark.parametrize("run", RUNS[:-1], ids=lambda run: f"{run[0]}-{'train' if run[1] else 'eval'}")
def test_logits_and_gradients_are_timms_to_the_bit(compared, run):
    assert_equal_to_the_bit(run, compared[0][run])


@pytest.mark.slow
@pytest.mark.parametrize("run", [("pit_b", False), ("pit_b_distilled", True)], ids=lambda run: run[0])
def test_logits_and_gradients_of_the_largest_are_timms_to_the_bit(run_python, run):
    assert_equal_to_the_bit(run, compare(run_python, [run])[0][run])


def test_one_wrong_epsilon_is_not_equal_to_the_bit(compared):
    result = compared[0][RUNS[-1]]
    assert result["different_outputs"] == [0]
    assert "transformers.0.blocks.0.norm1.weight" in result["different_gradients"]


def test_drop_path_is_timms_for_the_same_draws(compared):
    assert compared[1] == [True] * 4


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
