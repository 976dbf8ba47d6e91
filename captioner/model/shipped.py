"""The models inside the package, by name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.model.caption_model import CaptionModel
from captioner.model.options import SHIPPED, ModelOptions


def load_model(
    path_or_name: str | Path = ModelOptions.model,
    *,
    device: str = ModelOptions.device,
    precision: str = ModelOptions.precision,
) -> CaptionModel:
    """Load a captioner: one of `captioner.model.options.SHIPPED`, or a file of your own.

    See :meth:`CaptionModel.load` for the options and errors.
    """
    name = str(path_or_name)
    if name not in SHIPPED:
        return CaptionModel.load(path_or_name, device=device, precision=precision)
    shipped = resources.files("captioner") / "weights" / f"{name}.safetensors"
    if not shipped.is_file():
        raise CaptionerError(
            f"model {name}: this installation has no weights/{name}.safetensors; reinstall "
            "captioner, or give a model file"
        )
    with resources.as_file(shipped) as path:
        model = CaptionModel.load(path, device=device, precision=precision)
        _ = model.sha256  # Out of a zipped package, the file is gone later.
    return model
