"""Does to `weights.py` of one side all that the tests ask about, in a process of its own, and writes down the answers.

Arguments: package (torch_ref or paddle_impl), folder. Leaves `facts.json`: a value for each question.
"""

import contextlib
import hashlib
import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np

# Every width that can be is square: a forgotten transpose changes no shape.
TINY = {"image_size": 32, "base_dims": (4, 4, 4), "heads": (2, 2, 2), "depth": (1, 1, 1), "num_classes": 8}
LINEARS = [
    *(f"transformers.{i}.blocks.0.{leaf}.weight" for i in range(3) for leaf in ("attn.qkv", "attn.proj", "mlp.fc1")),
    *(f"transformers.{i}.blocks.0.mlp.fc2.weight" for i in range(3)),
    *("pools.0.fc.weight", "pools.1.fc.weight", "head.weight", "head_dist.weight"),
]

NETWORK = ("socket.getaddrinfo", "socket.connect")  # audit events of Python's own sockets


def reference(shapes, dtype="f4"):
    """A state with other values for each seed, in PyTorch's layout."""
    rng = np.random.default_rng(0)
    return {key: rng.standard_normal(shape).astype(dtype) for key, shape in shapes.items()}


def lay_out_as_the_hub(home, variant, content):
    """A cache of huggingface_hub with one file: blobs, a snapshot that links to them, and the ref that names it."""
    repository = home / "hub" / f"models--timm--{variant}_224.in1k"
    commit = "0123456789abcdef0123456789abcdef01234567"
    for folder in ("blobs", f"snapshots/{commit}", "refs"):
        (repository / folder).mkdir(parents=True)
    digest = hashlib.sha256(content).hexdigest()
    (repository / "blobs" / digest).write_bytes(content)
    (repository / "snapshots" / commit / "model.safetensors").symlink_to(f"../../blobs/{digest}")
    (repository / "refs" / "main").write_text(commit)


class Probe:
    def __init__(self, package, folder):
        self.weights = importlib.import_module(f"{package}.weights")
        self.pit = importlib.import_module(f"{package}.pit")
        self.torch = package == "torch_ref"
        self.framework = importlib.import_module("torch" if self.torch else "paddle")
        self.suffix, self.foreign = (".pth", ".pdparams") if self.torch else (".pdparams", ".pth")
        self.folder = folder
        self.facts = {}
        self.model = self.tiny()
        shapes = {key: array.shape for key, array in self.weights.reference_state(self.model).items()}
        self.state = reference(shapes)
        self.native = folder / f"tiny{self.suffix}"
        self.neutral = folder / "tiny.safetensors"

    def tiny(self, **arguments):
        return self.pit.pit_ti_distilled(**TINY | arguments)

    def double(self, model):
        return model.double() if self.torch else model.to(dtype="float64")

    def half(self, model):
        """In bfloat16, which numpy has not."""
        return model.bfloat16() if self.torch else model.to(dtype="bfloat16")

    def error(self, call):
        """The text of the WeightsError; any other exception ends the probe."""
        try:
            call()
        except self.weights.WeightsError as error:
            return str(error)
        return None

    def differences(self, state, other):
        assert state.keys() == other.keys(), sorted(state.keys() ^ other.keys())
        return [
            key for key in state if state[key].dtype != other[key].dtype or state[key].tobytes() != other[key].tobytes()
        ]

    def loading(self):
        hashes = self.weights.load_reference_state(self.model, self.state)
        expected = {key: hashlib.sha256(array.tobytes()).hexdigest() for key, array in self.state.items()}
        self.facts["hashes"] = hashes == expected
        self.facts["read back"] = self.differences(self.weights.reference_state(self.model), self.state)
        self.facts["transposed"] = self.weights.transposed_keys(self.model)
        self.facts["wrong products"] = self.wrong_products()
        double = self.double(self.tiny())
        self.weights.load_reference_state(double, self.state)
        wide = {key: array.astype("f8") for key, array in self.state.items()}
        self.facts["widened"] = self.differences(self.weights.reference_state(double), wide)
        self.weights.load_reference_state(self.tiny(), wide)  # float64 that float32 holds exactly
        lossy = wide | {"norm.bias": wide["norm.bias"] + 1e-12}
        self.facts["lossy"] = self.error(lambda: self.weights.load_reference_state(self.tiny(), lossy))
        rounded = self.tiny()
        self.weights.load_reference_state(rounded, lossy, cast=True)
        self.facts["cast"] = self.differences(self.weights.reference_state(rounded), self.state)
        half = self.half(self.tiny())
        self.facts["lossy half"] = self.error(lambda: self.weights.load_reference_state(half, self.state))
        self.weights.load_reference_state(half, self.state, cast=True)
        near = self.weights.reference_state(half)
        self.facts["half"] = max(float(abs(near[key] / self.state[key] - 1).max()) for key in near)

    def wrong_products(self):
        """Linear layers of the loaded model that do not compute x @ W.T: by what they do, not by what they hold."""
        wrong = []
        for key in LINEARS:
            layer = self.model
            for part in key.split(".")[:-1]:
                layer = getattr(layer, part)
            weight, bias = self.state[key], self.state[key.replace("weight", "bias")]
            x = np.eye(weight.shape[1], dtype="f4")
            if not np.allclose(
                layer(self.framework.to_tensor(x) if not self.torch else self.framework.tensor(x)).detach().numpy(),
                x @ weight.T + bias,
                atol=1e-5,
            ):
                wrong.append(key)
        return wrong

    def faults(self):
        missing = {key: array for key, array in self.state.items() if not key.startswith("pools.0.")}
        extra = self.state | {"head.scale": np.ones(3, "f4")}
        turned = self.state | {
            "transformers.0.blocks.0.mlp.fc1.weight": self.state["transformers.0.blocks.0.mlp.fc1.weight"].T
        }
        fresh = self.tiny()
        before = self.weights.reference_state(fresh)
        for name, state in {"missing": missing, "extra": extra, "turned": turned, "nothing": {}}.items():
            self.facts[name] = self.error(lambda state=state: self.weights.load_reference_state(fresh, state))
        self.facts["changed by failures"] = self.differences(self.weights.reference_state(fresh), before)

    def files(self):
        weights, state = self.weights, self.state
        for path, keys in (
            (self.native, "official"),
            (self.neutral, "official"),
            (self.folder / "timm.safetensors", "timm"),
            (self.folder / f"timm{self.suffix}", "timm"),
        ):
            weights.write_weights(path, state, self.model, keys)
            self.facts[f"file {path.name}"] = self.differences(weights.read_weights(path, self.model), state)
        strided = {key: np.asfortranarray(array) for key, array in state.items()}
        weights.write_weights(self.folder / "strided.safetensors", strided, self.model)
        self.facts["file strided"] = self.differences(weights.read_weights(self.folder / "strided.safetensors"), state)
        self.facts["write another"] = self.error(lambda: weights.write_weights(self.native, {}, self.model))
        self.facts["write elsewhere"] = self.error(
            lambda: weights.write_weights(self.folder / "none" / "x.safetensors", state, self.model)
        )
        self.facts["write elsewhere, natively"] = self.error(
            lambda: weights.write_weights(self.folder / "none" / f"x{self.suffix}", state, self.model)
        )
        for suffix in (self.suffix, ".safetensors"):
            (self.folder / f"taken{suffix}").mkdir()  # the file is written aside, and cannot be moved there
            self.facts[f"write taken{suffix}"] = self.error(
                lambda suffix=suffix: weights.write_weights(self.folder / f"taken{suffix}", state, self.model)
            )
        self.facts["left over"] = [name for name in os.listdir(self.folder) if name.startswith(".")]

    def bad_files(self):
        whole = {path.suffix: path.read_bytes() for path in (self.native, self.neutral)}
        results = {}
        for suffix, content in whole.items():
            cuts = [0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1]
            bad = {f"cut at {cut}": content[:cut] for cut in cuts} | {"noise": np.random.default_rng(1).bytes(5000)}
            for name, data in bad.items():
                path = self.folder / f"bad{suffix}"
                path.write_bytes(data)
                results[f"{suffix} {name}"] = self.error(lambda path=path: self.tiny(pretrained=path))
        self.facts["bad files"] = results
        (self.folder / "folder.safetensors").mkdir()
        for name in ("none.safetensors", "folder.safetensors", f"x{self.foreign}", "x.bin"):
            path = self.folder / name
            if not path.exists() and name.startswith("x"):
                path.write_bytes(b"content")
            self.facts[name] = self.error(lambda path=path: self.tiny(pretrained=path))

    def other_dtypes(self):
        from safetensors import TensorSpec, serialize_file

        arrays = {
            "bf16": ("bfloat16", {key: array.view("<u4") >> 16 for key, array in self.state.items()}, "<u2"),
            "f16": ("float16", self.state, "<f2"),
        }
        for name, (kind, values, dtype) in arrays.items():
            held = {key: np.ascontiguousarray(value.astype(dtype)) for key, value in values.items()}
            specs = {
                key: TensorSpec(dtype=kind, shape=value.shape, data_ptr=value.ctypes.data, data_len=value.nbytes)
                for key, value in held.items()
            }
            serialize_file(specs, self.folder / f"{name}.safetensors", metadata=None)
            notes = []
            read = self.weights.read_weights(self.folder / f"{name}.safetensors", notes=notes)
            if name == "bf16":
                expected = {key: (value.astype("<u4") << 16).view("<f4") for key, value in held.items()}
            else:
                expected = held
            self.facts[name] = [self.differences(read, expected), notes]
            self.weights.load_reference_state(self.tiny(), read)

    def pretrained(self):
        path = self.folder / f"timm{self.suffix}"
        self.facts["from a path"] = self.differences(
            self.weights.reference_state(self.tiny(pretrained=path)), self.state
        )
        self.facts["from text"] = self.differences(
            self.weights.reference_state(self.tiny(pretrained=str(path))), self.state
        )
        self.facts["of another"] = self.error(lambda: self.pit.pit_ti(**TINY, pretrained=path))
        self.facts["other classes"] = self.error(lambda: self.tiny(pretrained=path, num_classes=5))

    def hub(self):
        """HF_HUB_OFFLINE is as the caller set it; HF_HOME holds pit_ti_distilled only."""
        model = self.tiny(pretrained=True)
        self.facts["hub"] = self.differences(self.weights.reference_state(model), self.state)
        connections = []
        sys.addaudithook(lambda event, _: connections.append(event) if event in NETWORK else None)
        self.facts["hub without the file"] = self.error(lambda: self.pit.pit_ti(**TINY, pretrained=True))
        self.facts["connections"] = connections.copy()

    def variants(self):
        found = {}
        for variant, hyper in self.pit.VARIANTS.items():
            dim, grid = hyper["base_dims"][0] * hyper["heads"][0], (224 - hyper["patch_size"]) // hyper["stride"] + 1
            state = {
                "pos_embed": np.empty((1, dim, grid, grid)),
                "cls_token": np.empty((1, 1 + hyper["distilled"], dim)),
                "patch_embed.conv.weight": np.empty((dim, 4, 1, 1)),
                "head.bias": np.empty(7),
            }
            found[variant] = self.weights.infer_variant(state)
        self.facts["variants"] = found
        self.facts["no variant"] = self.error(
            lambda: self.weights.infer_variant(state | {"pos_embed": np.empty((1, 5, 2, 2))})
        )
        self.facts["no pit"] = self.error(lambda: self.weights.infer_variant({"fc.weight": np.empty((2, 2))}))

    def names(self):
        names = ["pools.0.conv.weight", "pools.1.fc.bias", "transformers.0.blocks.1.attn.qkv.weight", "head.bias"]
        self.facts["names"] = [self.weights.official_to_timm(name) for name in names]
        self.facts["names back"] = [
            self.weights.timm_to_official(self.weights.official_to_timm(name)) for name in names
        ] == names
        self.facts["old timm"] = self.error(lambda: self.weights.timm_to_official("transformers.0.pool.conv.weight"))

    def batch_norm(self):
        """A model that is no PiT, with a square Linear in the root of a Sequential and BatchNorm's buffers."""
        nn = self.framework.nn
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3) if self.torch else nn.BatchNorm1D(3), nn.Linear(3, 3))
        shapes = {"0.weight": (3, 3), "0.bias": (3,), "2.weight": (3, 3), "2.bias": (3,)} | {
            f"1.{leaf}": (3,) for leaf in ("weight", "bias", "running_mean", "running_var")
        }
        state = reference(shapes)
        self.weights.load_reference_state(model, state)
        loaded = self.weights.reference_state(model)
        loaded.pop("1.num_batches_tracked", None)
        self.facts["batch norm"] = self.differences(loaded, state)
        counted = state | {"1.num_batches_tracked": np.array(5)}
        self.weights.load_reference_state(model, counted)
        self.facts["counter of nothing"] = self.error(
            lambda: self.weights.load_reference_state(model, state | {"0.num_batches_tracked": np.array(5)})
        )


def main(package, folder):
    probe = Probe(package, Path(folder))
    lay_out = Path(os.environ["HF_HOME"])
    probe.loading()
    probe.faults()
    probe.files()
    with contextlib.suppress(FileExistsError):
        lay_out_as_the_hub(lay_out, "pit_ti_distilled", (probe.folder / "timm.safetensors").read_bytes())
    for part in (
        probe.bad_files,
        probe.other_dtypes,
        probe.pretrained,
        probe.hub,
        probe.variants,
        probe.names,
        probe.batch_norm,
    ):
        part()
    other = "paddle" if probe.torch else "torch"
    probe.facts["imported"] = sorted({other, "timm", "torchvision", "align"} & set(sys.modules))
    (probe.folder / "facts.json").write_text(json.dumps(probe.facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
