"""Builds the wheel and the sdist, and proves both in fresh virtual environments.

    python tools/check_wheel.py [--output FOLDER] [--environments FOLDER]

The wheel must install and work where there is no compiler; the sdist must build. Both get the
oldest torch that is supported. What was built is left in the output folder, and the environment of
the wheel in the other one, as ``wheel``.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TORCH = "torch==2.13.0"

SMOKE = """
import shutil, sys
import numpy, onnxruntime, torch, custom_ops
assert not {"onnxscript", "onnx_ir"} & sys.modules.keys(), "loaded by import custom_ops"
assert sys.argv[1] != "wheel" or not shutil.which("c++"), "a compiler is on the PATH"
assert sys.prefix in custom_ops.__file__, custom_ops.__file__

a, b = torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
x, offset, weight = torch.randn(1, 3, 6, 6), torch.randn(1, 18, 4, 4), torch.randn(2, 3, 3, 3)
class Both(torch.nn.Module):
    def forward(self, x, offset):
        y = custom_ops.deform_conv2d(x, offset, weight)
        return custom_ops.mul_add(y, y, alpha=3.0)

torch.testing.assert_close(torch.ops.custom_ops.mul_add(a, b), 2 * a + b)
numpy.testing.assert_allclose(custom_ops.numpy.mul_add(a.numpy(), b.numpy()), 2 * a + b, 1e-5, 1e-6)
assert custom_ops.onnx.export(Both().eval(), (x, offset), "smoke.onnx", exporter="torchscript")
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(custom_ops.get_library_path())
for chosen in (options, onnxruntime.SessionOptions()):
    session = onnxruntime.InferenceSession("smoke.onnx", chosen)
    (result,) = session.run(None, {"x": x.numpy(), "offset": offset.numpy()})
    numpy.testing.assert_allclose(result, Both()(x, offset), 1e-4, 1e-4)
print(f"  torch {torch.__version__}, onnxruntime {onnxruntime.__version__}: works")
"""


def run(*command: str | Path, **options: object) -> None:
    """Runs a command; where it fails, so does this script."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= options.pop("environment", {})  # type: ignore[call-overload]
    subprocess.run([str(c) for c in command], check=True, env=environment, **options)  # type: ignore[call-overload]


def without_compilers(folder: Path) -> dict[str, str]:
    """Returns an environment in whose PATH there is no compiler."""
    folder.mkdir()
    return {"PATH": str(folder), "CXX": "", "CC": ""}


def prove(kind: str, package: Path, environment: Path, folder: Path) -> None:
    """Installs a package in a fresh environment and uses it there.

    Args:
        kind: "wheel" or "sdist".
        package: The file.
        environment: Where to make the environment.
        folder: An empty folder to work in.
    """
    started = time.monotonic()
    bare = without_compilers(folder / "bin") if kind == "wheel" else {}
    run(sys.executable, "-m", "venv", "--clear", environment)
    python = environment / "bin" / "python"
    install = (python, "-m", "pip", "install", "--quiet")
    run(*install, TORCH, package, environment=bare, cwd=folder)
    run(python, "-c", SMOKE, kind, environment=bare, cwd=folder)
    print(f"  {kind} proved in {time.monotonic() - started:.0f} s", flush=True)


def build(output: Path) -> tuple[Path, Path]:
    """Builds the sdist, and the wheel from it, and checks what their names say."""
    started = time.monotonic()
    run(sys.executable, "-m", "build", "--outdir", output, REPOSITORY, stdout=subprocess.DEVNULL)
    (wheel,) = output.glob("*.whl")
    (sdist,) = output.glob("*.tar.gz")
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    version = sdist.name.removeprefix("custom_ops-").removesuffix(".tar.gz")
    assert wheel.name == f"custom_ops-{version}-{tag}-{tag}-{platform}.whl", wheel.name
    for package in (wheel, sdist):
        print(f"  {package.name}: {package.stat().st_size / 1e6:.2f} MB")
    print(f"  built in {time.monotonic() - started:.0f} s", flush=True)
    return wheel, sdist


def main() -> None:
    """Builds and proves both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="leave wheel and sdist here")
    parser.add_argument("--environments", type=Path, help="leave the wheel's environment here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel, sdist = build((arguments.output or folder / "dist").resolve())
        environments = (arguments.environments or folder / "environments").resolve()
        for kind, package in (("wheel", wheel), ("sdist", sdist)):
            (folder / kind).mkdir()
            prove(kind, package, environments / kind, folder / kind)


if __name__ == "__main__":
    main()
