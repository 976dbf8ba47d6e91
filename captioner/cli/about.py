"""`captioner --version --verbose`: what computes on this machine, and why."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("torch", "onnxruntime", "pillow", "av", "opencv-python-headless")


def lines_about() -> list[str]:
    """Packages, device and engine of the shipped model, one a line; loads torch and the model."""
    from captioner.model.options import BatchOptions
    from captioner.model.shipped import load_model

    model = load_model()
    encoder = model.fast_encoder()
    if encoder.why_torch:
        how = f"torch ({encoder.why_torch})"
    else:
        how = f"onnxruntime (float32 on a CPU), {_threads(encoder.lanes)} with an image each"
    return [
        f"python {platform.python_version()}, {', '.join(map(_with_version, PACKAGES))}",
        f"device {model.device}, precision {model.precision}",
        f"the CNN runs in {how}",
        f"meanwhile {_threads(encoder.search_threads)} to search for captions, "
        f"{_threads(BatchOptions().workers)} to read images (--workers)",
    ]


def _with_version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
