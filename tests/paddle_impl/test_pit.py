"""The port as Paddle's users meet it. What it computes is held to the reference in tests/models/test_pit_pair.py."""

import json

PRETRAINED = """
import paddle_impl.pit as pit, paddle_impl.weights as weights

weights.load_pretrained = lambda model, variant, source: print(type(model).__name__, variant, source)
pit.pit_ti(pretrained="some/file.pdparams", image_size=32)
pit.pit_xs_distilled(pretrained=True, image_size=32)
pit.pit_s(image_size=32)
"""

EXPORT = """
import json, sys
import numpy as np, paddle
import paddle_impl.pit as pit

paddle.seed(0)
images = paddle.randn([2, 3, 40, 56])
model = pit.pit_ti(image_size=(40, 56), base_dims=(8, 8, 8), num_classes=5)
model.eval()
eager = model(images).numpy()
spec = [paddle.static.InputSpec([None, 3, 40, 56], "float32")]
static = paddle.jit.to_static(model, input_spec=spec, full_graph=True)
paddle.jit.save(static, sys.argv[1])
saved = paddle.jit.load(sys.argv[1])
print(json.dumps({
    "static": float(np.abs(static(images).numpy() - eager).max()),
    "saved": float(np.abs(saved(images[:1]).numpy() - eager[:1]).max()),
    "scale": float(np.abs(eager).max()),
}))
"""


def test_pretrained_hands_variant_and_source_to_the_loader(run_python):
    assert run_python(PRETRAINED).stdout.splitlines() == [
        "PoolingTransformer pit_ti some/file.pdparams",
        "DistilledPoolingTransformer pit_xs_distilled True",
    ]


def test_model_can_be_exported_for_any_batch_size(run_python, tmp_path):
    result = json.loads(run_python(EXPORT, tmp_path / "pit").stdout.splitlines()[-1])
    assert result["scale"] > 0.1
    # Seen: 0 and 2e-7, of logits up to 0.8 in float32.
    assert result["static"] <= 1e-5
    assert result["saved"] <= 1e-5


def test_every_parameter_is_trainable(run_python):
    code = """
import paddle_impl.pit as pit
model = pit.pit_ti_distilled(image_size=32)
print([name for name, parameter in model.named_parameters() if parameter.stop_gradient], len(model.parameters()))
"""
    assert run_python(code).stdout.strip() == "[] 162"
