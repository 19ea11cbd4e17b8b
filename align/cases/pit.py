"""PiT (arXiv 2103.16302): the eight published variants and `pit_probe`, the small case that sees most."""

from typing import Any

from align.case import Case, Input, Loss, Training

SMALL = {
    "patch_size": 16,
    "stride": 8,
    "base_dims": [16, 16, 16],
    "depth": [1, 2, 1],
    "heads": [2, 4, 8],
    "mlp_ratio": 2,
}

DIGITS = 48  # pixels that a digit has each way: three sizes of token maps, 5, 3 and 2

# Unlike one another, so that none can stand in for another.
RATES = {"drop_rate": 0.1, "attn_drop_rate": 0.2, "drop_path_rate": 0.3}


def _training(distilled: bool, **changes: Any) -> Training:
    name = "DistilledPoolingTransformer" if distilled else "PoolingTransformer"
    return Training(
        reference=f"torch_ref.pit:{name}",
        port=f"paddle_impl.pit:{name}",
        build={"image_size": DIGITS, "num_classes": 10, "in_chans": 1, **SMALL},
        image_size=DIGITS,
        **changes,
    )


def _variant(name: str, batch: int) -> Case:
    distilled = name.endswith("_distilled")
    return Case(
        name=name,
        reference=f"torch_ref.pit:{name}",
        port=f"paddle_impl.pit:{name}",
        build={},
        inputs=(Input("image", (batch, 3, 224, 224)),),
        classes=1000,
        features="forward_features",
        loss=Loss(distillation="hard" if distilled else "none"),
        iterations=3,
        training=_training(distilled),
        rates=RATES,
        summary=f"{name} at 224 px, 1000 classes, batch {batch}",
    )


# Odd, non-square sizes; as many classes as the embedding is wide, so that every `head` is square too; a batch of 4 with
# distinct labels; a weight decay that shows in five steps; clipping that is active.
PROBE = Case(
    name="pit_probe",
    reference="torch_ref.pit:DistilledPoolingTransformer",
    port="paddle_impl.pit:DistilledPoolingTransformer",
    build={
        "image_size": [47, 61],
        "patch_size": 8,
        "stride": 5,
        "base_dims": [8, 8, 8],
        "depth": [1, 2, 1],
        "heads": [2, 4, 8],
        "mlp_ratio": 4,
        "num_classes": 64,
    },
    inputs=(Input("image", (4, 3, 47, 61)),),
    classes=64,
    features="forward_features",
    loss=Loss(distillation="soft", alpha=0.3, tau=2.0),
    optimizer={"lr": 1e-3, "weight_decay": 2.0, "eps": 1e-8},
    clip_norm=0.5,
    training=_training(True, iterations=100, batch=24, accumulation=2, clip_norm=1.0),
    rates=RATES,
    summary="a small distilled PiT, 47 x 61 px: the sharp case that CI runs most",
)

# The same network under other names and in another module tree, trained by the same recipe.
TIMM = Case(
    name="pit_ti_timm",
    reference="timm.models.pit:pit_ti_224",
    port="paddle_impl.pit:pit_ti",
    port_names="paddle_impl.weights:timm_to_official",
    reference_package="torch_ref",
    loss=Loss(),
    build={},
    inputs=(Input("image", (3, 3, 224, 224)),),
    classes=1000,
    features="forward_features",
    steps=("forward", "bp_align"),
    summary="timm's own pit_ti_224 as the reference: unlike module tree and names",
)

CASES = (
    PROBE,
    TIMM,
    *(
        _variant(f"pit_{size}{suffix}", batch)
        for suffix in ("", "_distilled")
        for size, batch in (("ti", 4), ("xs", 4), ("s", 3), ("b", 3))
    ),
)
