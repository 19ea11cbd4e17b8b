"""timm's PiT behind the arguments of `torch_ref.pit`: a reference of another module tree."""

from timm.models.pit import PoolingVisionTransformer


def distilled(image_size, **arguments):
    """timm 1.0.31, models/pit.py; in training it returns both heads only where it is told so."""
    model = PoolingVisionTransformer(img_size=image_size, distilled=True, **arguments)
    model.set_distilled_training()
    return model
