"""Who may import whom, and what a command pays for when it starts."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import captioner

PACKAGE = Path(captioner.__file__).parent

# Left may import right, and what right may import. Everything may import `errors`.
MAY_IMPORT = {
    "errors": "",
    "tokenizer": "",
    "transform": "",
    "pretrained": "",
    "encoder": "transform pretrained cnn_graph weight_tools",
    "decoder": "",
    "decoding": "",
    "constraints": "decoding tokenizer",
    "blanks": "decoding tokenizer",
    "metrics": "",
    "finding": "",
    "jobs": "finding",
    "limited_file": "",
    "tiff_parts": "",
    "images": "finding limited_file tiff_parts",
    "files": "",
    "pages": "",
    "xmp": "__init__",
    "writers": "files finding images xmp",
    "tag_writers": "files writers video_page",
    "video_page": "pages files __init__",
    "thumbnails": "transform",
    "tag_pages": "video_page thumbnails pages files finding __init__",
    "dataset_formats": "",
    "datasets": "dataset_formats",
    "feature_cache": "encoder images",
    "lexicon": "tokenizer",
    "tags": "lexicon",
    "familiarity": "",
    "tag_head": "lexicon",
    "weight_tools": "",
    "cnn_graph": "weight_tools",
    "onnx_runtime": "cnn_graph",
    "fast_encoder": "encoder cnn_graph weight_tools onnx_runtime",
    "fast_decoder": "decoder encoder weight_tools",
    "model_file": "files",
    "model": (
        "encoder decoder decoding constraints blanks tokenizer transform images lexicon tags "
        "familiarity tag_head model_file fast_encoder fast_decoder cnn_graph weight_tools"
    ),
    "checkpoints": "model model_file",
    "captioning": "images model tags encoder",
    "fill": "model blanks images finding",
    "fill_writers": "writers files finding",
    "journal": "jobs files",
    "attention": "tokenizer",
    "explain": "attention model decoding files images",
    "report_pictures": "attention captioning files images",
    "report": "report_pictures pages journal files model tokenizer __init__",
    "caption_output": "journal writers files finding",
    "caption_job": "caption_output journal jobs captioning images model writers files __init__",
    "video": "animations video_colours finding",
    "animations": "",
    "video_colours": "",
    "sampling": "video",
    "video_process": "sampling video transform finding",
    "timeline": "lexicon tags",
    "tagging": (
        "timeline video_process video sampling model tags decoding finding encoder thumbnails"
    ),
    "tag_job": (
        "jobs tagging tag_writers tag_pages writers files video sampling timeline decoding finding "
        "__init__"
    ),
    "evaluation": "captioning datasets metrics model files __init__",
    "calibration": (
        "evaluation datasets metrics model tags lexicon familiarity tag_head images tokenizer "
        "__init__"
    ),
    "datamodule": (
        "datasets model checkpoints encoder tokenizer transform images feature_cache lexicon"
    ),
    "self_critical": "decoder decoding encoder metrics tokenizer",
    "averaging": "",
    "training": "averaging datamodule decoding metrics model self_critical",
    "training_cli": "averaging training datamodule checkpoints",
    "training_report": "files tokenizer",
    "training_plots": "training_report files",
    "cli_options": "decoding",
    "cli_report": "cli_options report explain model",
    "cli_training_report": "cli_options training_plots training_report files",
    "cli_caption": "cli_options cli_report caption_job model writers report",
    "cli_fill": "cli_options fill fill_writers model",
    "cli": (
        "cli_options cli_caption cli_fill cli_report cli_training_report tag_job evaluation "
        "calibration datasets writers training_cli model checkpoints model_file __init__"
    ),
    "__main__": "cli",
    "__init__": "captioning tagging fill model decoding",
}
USE_LIGHTNING = {"averaging", "datamodule", "training", "training_cli"}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def reachable(module: str) -> set[str]:
    """The modules that `module` may import: those in the table, and theirs."""
    found: set[str] = {"errors"}
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
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
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
            first = rest.partition(".")[0]
            found.add(first if (PACKAGE / f"{first}.py").is_file() else "__init__")
    return found


def test_every_module_has_its_place_in_the_table() -> None:
    assert [name for name in MODULES if name not in MAY_IMPORT] == []


def test_the_table_has_no_circle() -> None:
    # `captioner/__init__.py` names what it offers, and imports it on first use only.
    assert [name for name in MAY_IMPORT if name in reachable(name) and name != "errors"] == []


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
        "from captioner.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
    )
    loaded = modules_after(code, tmp_path)
    assert "captioner.cli" in loaded
    assert (
        loaded & {"torch", "torchvision", "timm", "numpy", "PIL", "pytorch_lightning", "jinja2"}
        == set()
    )
    assert loaded & {"matplotlib", "tensorboard"} == set()


def test_importing_the_package_loads_no_torch(tmp_path: Path) -> None:
    loaded = modules_after("import captioner; assert captioner.__version__", tmp_path)
    assert "captioner" in loaded
    assert loaded & {"torch", "numpy", "PIL", "pytorch_lightning", "captioner.model"} == set()


def test_captioning_a_photo_loads_no_lightning(tmp_path: Path) -> None:
    # The model is tiny and untrained: what is imported does not depend on its weights.
    code = """
from pathlib import Path
from PIL import Image
import captioner
from captioner.cli import main
from captioner.decoder import DecoderConfig
from captioner.encoder import EncoderConfig
from captioner.tokenizer import Tokenizer
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
    assert "captioner.captioning" in loaded
    assert loaded & {"pytorch_lightning", "lightning", "torchmetrics", "jsonargparse"} == set()
    assert loaded & {"captioner.training", "captioner.datamodule", "tensorboard"} == set()


def test_the_shipped_model_needs_no_library_of_cnns(tmp_path: Path) -> None:
    code = """
from PIL import Image
from captioner.cli import main
Image.new("RGB", (80, 60), "red").save("red.png")
assert main(["caption", "red.png", "--device", "cpu"]) == 0
"""
    loaded = modules_after(code, tmp_path)
    assert "captioner.cnn_graph" in loaded
    # These take as long to import as torch itself.
    assert loaded & {"timm", "torchvision", "torch._dynamo", "sympy"} == set()


def test_the_public_names_are_what_the_modules_define() -> None:
    from captioner.blanks import FillOptions
    from captioner.captioning import caption_images
    from captioner.decoding import DecodingOptions
    from captioner.errors import CaptionerError
    from captioner.fill import fill_images
    from captioner.model import CaptionModel, load_model
    from captioner.tagging import VideoTags, tag_video, tag_videos

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
