"""Who may import whom, and what a command pays for when it starts."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import captioner

PACKAGE = Path(captioner.__file__).parent

# Left may import right, and what right may import. Everything may import `errors` and `version`.
MAY_IMPORT = {
    "errors": (""),
    "version": (""),
    "text.tokenizer": (""),
    "images.transform": (""),
    "networks.pretrained": (""),
    "networks.encoder": (
        "images.transform networks.pretrained networks.cnn_graph networks.weights"
    ),
    "networks.decoder": (""),
    "decoding.search": (""),
    "decoding.constraints": ("decoding.search text.tokenizer"),
    "decoding.blanks": ("decoding.search text.tokenizer"),
    "text.metrics": (""),
    "files.finding": (""),
    "files.resume": ("files.finding"),
    "images.limits": (""),
    "images.tiff_parts": (""),
    "images.reading": ("files.finding images.limits images.tiff_parts"),
    "files.writing": (""),
    "pages.render": (""),
    "captioning.xmp": ("__init__"),
    "captioning.writers": ("files.writing files.finding images.reading captioning.xmp"),
    "tagging.writers": ("files.writing captioning.writers pages.video_page"),
    "pages.video_page": ("pages.render files.writing __init__"),
    "images.thumbnails": ("images.transform"),
    "pages.video_index": (
        "pages.video_page images.thumbnails pages.render files.writing files.finding __init__"
    ),
    "data.formats": (""),
    "data.datasets": ("data.formats"),
    "training.feature_cache": ("networks.encoder images.reading"),
    "text.lexicon": ("text.tokenizer"),
    "model.tags": ("text.lexicon"),
    "model.familiarity": (""),
    "model.tag_head": ("text.lexicon"),
    "networks.weights": (""),
    "networks.cnn_graph": ("networks.weights"),
    "networks.onnx_runtime": ("networks.cnn_graph"),
    "networks.fast_encoder": (
        "networks.encoder networks.cnn_graph networks.weights networks.onnx_runtime"
    ),
    "networks.fast_decoder": ("networks.decoder networks.encoder networks.weights"),
    "model.model_file": ("files.writing"),
    "model.caption_model": (
        "networks.encoder networks.decoder decoding.search decoding.constraints "
        "decoding.blanks text.tokenizer images.transform images.reading text.lexicon "
        "model.tags model.familiarity model.tag_head model.model_file "
        "networks.fast_encoder networks.fast_decoder networks.cnn_graph networks.weights"
    ),
    "model.checkpoints": ("model.caption_model model.model_file"),
    "captioning.batches": ("images.reading model.caption_model model.tags networks.encoder"),
    "captioning.fill": ("model.caption_model decoding.blanks images.reading files.finding"),
    "captioning.fill_writers": ("captioning.writers files.writing files.finding"),
    "files.journal": ("files.resume files.writing"),
    "model.attention": ("text.tokenizer"),
    "pages.explain": (
        "model.attention model.caption_model decoding.search files.writing images.reading"
    ),
    "pages.report_pictures": ("model.attention captioning.batches files.writing images.reading"),
    "pages.report": (
        "pages.report_pictures pages.render files.journal files.writing "
        "model.caption_model text.tokenizer __init__"
    ),
    "captioning.output": ("files.journal captioning.writers files.writing files.finding"),
    "captioning.job": (
        "captioning.output files.journal files.resume captioning.batches images.reading "
        "model.caption_model captioning.writers files.writing __init__"
    ),
    "video.frames": ("files.finding"),
    "video.sampling": ("video.frames"),
    "video.process": ("video.sampling video.frames images.transform files.finding"),
    "tagging.timeline": ("text.lexicon model.tags"),
    "tagging.videos": (
        "tagging.timeline video.process video.frames video.sampling model.caption_model "
        "model.tags decoding.search files.finding networks.encoder images.thumbnails"
    ),
    "tagging.job": (
        "files.resume tagging.videos tagging.writers pages.video_index captioning.writers "
        "files.writing video.frames video.sampling tagging.timeline decoding.search "
        "files.finding __init__"
    ),
    "evaluation.evaluate": (
        "captioning.batches data.datasets text.metrics model.caption_model files.writing __init__"
    ),
    "evaluation.calibrate": (
        "evaluation.evaluate data.datasets text.metrics model.caption_model model.tags "
        "text.lexicon model.familiarity model.tag_head images.reading text.tokenizer "
        "__init__"
    ),
    "training.datamodule": (
        "data.datasets model.caption_model model.checkpoints networks.encoder "
        "text.tokenizer images.transform images.reading training.feature_cache "
        "text.lexicon"
    ),
    "training.self_critical": (
        "networks.decoder decoding.search networks.encoder text.metrics text.tokenizer"
    ),
    "training.callbacks": (""),
    "training.task": (
        "training.callbacks training.datamodule decoding.search text.metrics "
        "model.caption_model training.self_critical"
    ),
    "training.lightning_cli": (
        "training.callbacks training.task training.datamodule model.checkpoints"
    ),
    "training.report": ("files.writing text.tokenizer"),
    "training.plots": ("training.report files.writing"),
    "cli.options": ("decoding.search"),
    "cli.report": ("cli.options pages.report pages.explain model.caption_model"),
    "cli.report_training": ("cli.options training.plots training.report files.writing"),
    "cli.caption": (
        "cli.options cli.report captioning.job model.caption_model captioning.writers pages.report"
    ),
    "cli.fill": ("cli.options captioning.fill captioning.fill_writers model.caption_model"),
    "cli.entry": (
        "cli.options cli.caption cli.fill cli.report cli.report_training tagging.job "
        "evaluation.evaluate evaluation.calibrate data.datasets captioning.writers "
        "training.lightning_cli model.caption_model model.checkpoints model.model_file "
        "__init__"
    ),
    "__main__": ("cli.entry"),
    "__init__": (
        "captioning.batches tagging.videos captioning.fill model.caption_model decoding.search"
    ),
}
USE_LIGHTNING = {
    "training.callbacks",
    "training.datamodule",
    "training.task",
    "training.lightning_cli",
}
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py" or path.parent == PACKAGE
)


def reachable(module: str) -> set[str]:
    """The modules that `module` may import: those in the table, and theirs."""
    found: set[str] = {"errors", "version"}
    waiting = MAY_IMPORT[module].split()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            # The package's own names are lazy: reading its version imports nothing else.
            waiting += MAY_IMPORT[name].split() if name != "__init__" else []
    return found


def imported(module: str) -> set[str]:
    """Full names of what a module imports when it runs, inside functions as well."""
    names = set()
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue  # The name of a type is no dependency.
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module is not None
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(module: str) -> set[str]:
    found = set()
    for name in imported(module):
        top, _, rest = name.partition(".")
        if top == "captioner":
            parts = rest.split(".")
            ways = (".".join(parts[:n]) for n in (2, 1))
            found.add(next((way for way in ways if way in MODULES), "__init__"))
    return found


def test_every_module_has_its_place_in_the_table() -> None:
    assert [name for name in MODULES if name not in MAY_IMPORT] == []


def test_the_table_has_no_circle() -> None:
    # `captioner/__init__.py` names what it offers, and imports it on first use only.
    assert [name for name in MAY_IMPORT if name in reachable(name) - {"errors", "version"}] == []


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    assert ours(module) - reachable(module) == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name not in USE_LIGHTNING])
def test_only_training_uses_lightning(module: str) -> None:
    tops = {name.partition(".")[0] for name in imported(module)}
    assert tops & {"pytorch_lightning", "lightning", "jsonargparse", "torchmetrics"} == set()


def modules_after(code: str, cwd: Path) -> set[str]:
    """Names in `sys.modules` after running code in a fresh interpreter."""
    script = f"import sys\n{code}\nprint('\\n'.join(['MODULES', *sys.modules]))"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, check=True
    )
    return set(run.stdout.rpartition("MODULES\n")[2].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["caption", "--help"],
        ["fill", "--help"],
        ["evaluate", "--help"],
        ["tag", "--help"],
        ["calibrate", "--help"],
        ["export", "--help"],
        ["report", "--help"],
        ["explain", "--help"],
        ["report-training", "--help"],
    ],
)
def test_help_is_instant(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "from captioner.cli.entry import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
    )
    loaded = modules_after(code, tmp_path)
    assert "captioner.cli.entry" in loaded
    assert (
        loaded & {"torch", "torchvision", "timm", "numpy", "PIL", "pytorch_lightning", "jinja2"}
        == set()
    )
    assert loaded & {"matplotlib", "tensorboard"} == set()


def test_importing_the_package_loads_no_torch(tmp_path: Path) -> None:
    loaded = modules_after("import captioner; assert captioner.__version__", tmp_path)
    assert "captioner" in loaded
    assert (
        loaded & {"torch", "numpy", "PIL", "pytorch_lightning", "captioner.model.caption_model"}
        == set()
    )


def test_captioning_a_photo_loads_no_lightning(tmp_path: Path) -> None:
    # The model is tiny and untrained: what is imported does not depend on its weights.
    code = """
from pathlib import Path
from PIL import Image
import captioner
from captioner.cli.entry import main
from captioner.networks.decoder import DecoderConfig
from captioner.networks.encoder import EncoderConfig
from captioner.text.tokenizer import Tokenizer
model = captioner.CaptionModel.build(
    EncoderConfig(name="timm/test_efficientnet", weights="none", image_size=64),
    DecoderConfig(hidden_size=16, embed_size=16, heads=1),
    Tokenizer(["a", "dog"]),
)
model.save("tiny.safetensors")
Image.new("RGB", (80, 60), "red").save("red.png")
assert main(["caption", "red.png", "--model", "tiny.safetensors", "--device", "cpu"]) == 0
"""
    loaded = modules_after(code, tmp_path)
    assert "captioner.captioning.batches" in loaded
    assert loaded & {"pytorch_lightning", "lightning", "torchmetrics", "jsonargparse"} == set()
    assert (
        loaded & {"captioner.training.task", "captioner.training.datamodule", "tensorboard"}
        == set()
    )


def test_the_shipped_model_needs_no_library_of_cnns(tmp_path: Path) -> None:
    code = """
from PIL import Image
from captioner.cli.entry import main
Image.new("RGB", (80, 60), "red").save("red.png")
assert main(["caption", "red.png", "--device", "cpu"]) == 0
"""
    loaded = modules_after(code, tmp_path)
    assert "captioner.networks.cnn_graph" in loaded
    # These take as long to import as torch itself.
    assert loaded & {"timm", "torchvision", "torch._dynamo", "sympy"} == set()


def test_the_public_names_are_what_the_modules_define() -> None:
    from captioner.captioning.batches import caption_images
    from captioner.captioning.fill import fill_images
    from captioner.decoding.blanks import FillOptions
    from captioner.decoding.search import DecodingOptions
    from captioner.errors import CaptionerError
    from captioner.model.caption_model import CaptionModel, load_model
    from captioner.tagging.videos import VideoTags, tag_video, tag_videos

    assert captioner.load_model is load_model
    assert captioner.CaptionModel is CaptionModel
    assert captioner.DecodingOptions is DecodingOptions
    assert captioner.CaptionerError is CaptionerError
    assert captioner.caption_images is caption_images
    assert captioner.fill_images is fill_images
    assert captioner.FillOptions is FillOptions
    assert captioner.tag_video is tag_video
    assert captioner.tag_videos is tag_videos
    assert captioner.VideoTags is VideoTags
    assert set(captioner.__all__) <= set(dir(captioner))
    with pytest.raises(AttributeError, match="no attribute 'tag_audio'"):
        captioner.tag_audio  # noqa: B018
