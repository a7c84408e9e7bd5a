"""Builds the kernel library and the two doors to it; csrc/ and CONTRIBUTING.md say what they are."""

import os
import shutil
import sys
from glob import glob

from setuptools import Extension, setup

OLDEST_TORCH = "2.13"
if not shutil.which(os.environ.get("CXX", "c++")):
    sys.exit(
        "custom_ops: building needs a C++20 compiler, got none; "
        "run `apt install g++`, or set CXX, or install a wheel"
    )
try:
    from packaging.version import Version
    from torch import __version__ as found
except ImportError:
    found = "none"
if found == "none" or Version(found) < Version(OLDEST_TORCH):
    sys.exit(
        f"custom_ops: building needs torch >= {OLDEST_TORCH}, got {found}; "
        f"run `pip install 'torch>={OLDEST_TORCH}'`"
    )

import pybind11  # noqa: E402
from torch.utils.cpp_extension import BuildExtension, CppExtension  # noqa: E402

# Ops that live outside this repository: folders laid out like csrc/ops.
OPS = ["csrc/ops", *filter(None, os.environ.get("CUSTOM_OPS_EXTRA", "").split(os.pathsep))]
FLAGS = ["-std=c++20", "-O3", "-fvisibility=hidden", "-Wall", "-Wno-missing-field-initializers"]
STABLE = ["-DTORCH_TARGET_VERSION=0x020d000000000000"]  # 2.13, whatever torch it is built on
KERNELS = "custom_ops.lib.libcustom_ops"


def extension(name, folders, make=Extension, flags=(), **options):
    files = [glob(f"{folder}/**/*.[ch]*", recursive=True) for folder in folders]
    sources = sorted(f for found in files for f in found if f.endswith(".cpp"))
    headers = glob("csrc/**/*.h", recursive=True)
    options["include_dirs"] = [os.path.abspath("csrc"), *options.get("include_dirs", [])]
    return make(name, sources, depends=headers, extra_compile_args=[*FLAGS, *flags], **options)


class Build(BuildExtension):
    def get_ext_filename(self, name):  # a library, not a module: no suffix of Python's
        is_kernels = name.split(".")[-1] == KERNELS.split(".")[-1]
        return name.replace(".", "/") + ".so" if is_kernels else super().get_ext_filename(name)

    def build_extensions(self):
        library = os.path.dirname(os.path.abspath(self.get_ext_fullpath(KERNELS)))
        for folder in [library, "custom_ops/lib"]:  # the second for --inplace
            os.makedirs(folder, exist_ok=True)
        for door in self.extensions[1:]:
            door.library_dirs.append(library)
            door.libraries.append("custom_ops")
            door.runtime_library_dirs.append("$ORIGIN/lib")
        super().build_extensions()


os.chdir(os.path.dirname(os.path.abspath(__file__)))
kernels = extension(KERNELS, ["csrc/core", "csrc/simd", *OPS, "csrc/adapters/ort"])
python = extension("custom_ops._core", ["csrc/adapters/python"], include_dirs=[pybind11.get_include()])
torch = extension("custom_ops._torch", ["csrc/adapters/torch"], CppExtension, STABLE, py_limited_api=True)
setup(ext_modules=[kernels, python, torch], cmdclass={"build_ext": Build})
