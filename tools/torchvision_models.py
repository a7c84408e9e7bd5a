"""A model of each family of torchvision, as files by both exporters of torch.

    python tools/torchvision_models.py FOLDER [--exporter dynamo ...]

Random weights, small inputs. What is there already is kept.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXPORTERS = ("torchscript", "dynamo")
SECONDS = 600.0
_IMAGE, _VIDEO = (1, 3, 64, 64), (1, 3, 4, 64, 64)
# Family: the model, the shape of its input.
FAMILIES: dict[str, tuple[str, tuple[int, ...]]] = {
    "AlexNet": ("alexnet", (1, 3, 224, 224)),
    "SqueezeNet": ("squeezenet1_1", _IMAGE),
    "MobileNet V2": ("mobilenet_v2", _IMAGE),
    "MobileNet V3": ("mobilenet_v3_small", _IMAGE),
    "ShuffleNet": ("shufflenet_v2_x0_5", _IMAGE),
    "MNASNet": ("mnasnet0_5", _IMAGE),
    "ResNet": ("resnet18", _IMAGE),
    "VGG": ("vgg11", (1, 3, 224, 224)),
    "GoogLeNet": ("googlenet", _IMAGE),
    "Inception": ("inception_v3", (1, 3, 96, 96)),
    "RegNet": ("regnet_y_400mf", _IMAGE),
    "EfficientNet": ("efficientnet_b0", _IMAGE),
    "ConvNeXt": ("convnext_tiny", _IMAGE),
    "DenseNet": ("densenet121", _IMAGE),
    "Vision Transformer": ("vit_b_32", (1, 3, 224, 224)),
    "Swin": ("swin_t", _IMAGE),
    "Swin V2": ("swin_v2_t", _IMAGE),
    "MaxViT": ("maxvit_t", (1, 3, 224, 224)),
    "FCN": ("fcn_resnet50", _IMAGE),
    "DeepLab V3": ("deeplabv3_mobilenet_v3_large", _IMAGE),
    "LR-ASPP": ("lraspp_mobilenet_v3_large", _IMAGE),
    "Video ResNet": ("r3d_18", _VIDEO),
    "S3D": ("s3d", (1, 3, 16, 224, 224)),
    "MViT": ("mvit_v1_b", (1, 3, 16, 224, 224)),
    "RAFT": ("raft_small", (1, 3, 128, 128)),
    "SSD": ("ssdlite320_mobilenet_v3_large", (3, 320, 320)),
    "Faster R-CNN": ("fasterrcnn_mobilenet_v3_large_320_fpn", (3, 128, 128)),
    "RetinaNet": ("retinanet_resnet50_fpn", (3, 128, 128)),
    "FCOS": ("fcos_resnet50_fpn", (3, 128, 128)),
    "Mask R-CNN": ("maskrcnn_resnet50_fpn", (3, 128, 128)),
    "Keypoint R-CNN": ("keypointrcnn_resnet50_fpn", (3, 128, 128)),
}


def export(name: str, shape: tuple[int, ...], exporter: str, path: Path) -> None:
    """Writes a model of torchvision."""
    import torch
    import torchvision

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    options: dict[str, Any] = {"weights": None}
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # drawing from a truncated normal takes long
    if "fcn" in name or "rcnn" in name or "lab" in name or "retina" in name or "fcos" in name:
        options["weights_backbone"] = None
    if "aspp" in name or "ssd" in name:
        options["weights_backbone"] = None
    model = torchvision.models.get_model(name, **options).eval()
    image = torch.rand(shape)
    inputs = ([image],) if len(shape) == 3 else (image, image) if name == "raft_small" else (image,)
    dynamo = exporter == "dynamo"
    torch.onnx.export(model, inputs, path, dynamo=dynamo, opset_version=18, verbose=False)


def _export_in(name: str, shape: tuple[int, ...], exporter: str, folder: Path) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try:
        with tempfile.TemporaryDirectory(dir=folder) as part:
            export(name, shape, exporter, Path(part) / "model.onnx")
            for file in sorted(Path(part).iterdir(), key=lambda file: file.suffix == ".onnx"):
                file.rename(folder / file.name)
    except Exception as error:
        lines = [line.strip() for line in str(error).strip().splitlines()] or [""]
        (folder / "refused").write_text(f"{type(error).__name__}: {lines[0][:200]}")


def exported(
    folder: Path, exporters: tuple[str, ...] = EXPORTERS, make: bool = True
) -> Iterator[tuple[str, str, Path]]:
    """Yields family, exporter and file of each model; the file is made where there is none.

    A model has a folder of its own, since its data may lie in a file beside it. Where the exporter
    does not take a model, ``refused`` in the folder says why.
    """
    for exporter in exporters:
        for family, (name, shape) in FAMILIES.items():
            place = folder / f"{name}_{exporter}"
            path, refused = place / "model.onnx", place / "refused"
            if make and not path.exists() and not refused.exists():
                place.mkdir(parents=True, exist_ok=True)
                context = multiprocessing.get_context("fork")
                child = context.Process(target=_export_in, args=(name, shape, exporter, place))
                child.start()
                child.join(SECONDS)
                if child.is_alive():
                    child.kill()
                    refused.write_text(f"no end within {SECONDS:g} s")
                elif child.exitcode and not refused.exists():
                    refused.write_text(f"ended the process with {child.exitcode}")
                child.join()
            yield family, exporter, path


def main() -> None:
    """Makes the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--exporter", action="append", choices=EXPORTERS)
    arguments = parser.parse_args()
    begin = time.monotonic()
    for family, exporter, path in exported(
        arguments.folder, tuple(arguments.exporter or EXPORTERS)
    ):
        refused = path.with_name("refused")
        said = refused.read_text() if refused.exists() else "made"
        print(f"{time.monotonic() - begin:.0f} s: {family} by {exporter}: {said}", flush=True)


if __name__ == "__main__":
    main()
