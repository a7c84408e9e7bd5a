"""Builds the kernel library and two doors to it: one of torch, one of Python."""

import os
import shutil
import sys
from glob import glob

from setuptools import Extension, setup

compiler = (os.environ.get("CXX") or "c++").split()[0]
if not shutil.which(compiler):
    sys.exit(
        f"custom_ops: building needs a C++20 compiler, got none ({compiler} is not found); "
        "run `apt install g++`, or set CXX, or install a wheel"
    )
try:
    from torch import __version__ as found
except ImportError:
    found = "none"
if found == "none" or [int(part) for part in found.split(".")[:2]] < [2, 13]:
    sys.exit(f"custom_ops: building needs torch >= 2.13, got {found}; pip install 'torch>=2.13'")

from pybind11 import get_include  # noqa: E402  torch is checked first
from torch.utils.cpp_extension import BuildExtension, CppExtension  # noqa: E402

KERNELS = "custom_ops.lib.libcustom_ops"
FLAGS = ["-std=c++20", "-O3", "-g0", "-fvisibility=hidden", "-Wall", "-I" + os.path.abspath("csrc")]
FLAGS += os.environ.get("CUSTOM_OPS_FLAGS", "").split()  # for sanitizers and profilers
STABLE = ["-DTORCH_TARGET_VERSION=0x020d000000000000"]  # 2.13, whatever torch it is built on
EXTRA = filter(None, os.environ.get("CUSTOM_OPS_EXTRA", "").split(os.pathsep))


def extension(name, folders, make=Extension, flags=(), **options):  # of all C++ files in folders
    sources = sorted(file for f in folders for file in glob(f"{f}/**/*.cpp", recursive=True))
    return make(name, sources, extra_compile_args=[*FLAGS, *flags], **options)


class Build(BuildExtension):
    def get_ext_filename(self, name):  # a library, not a module: no suffix of Python's
        is_kernels = name.endswith("libcustom_ops")
        return name.replace(".", "/") + ".so" if is_kernels else super().get_ext_filename(name)

    def build_extensions(self):
        self.force = True  # ninja knows better than setuptools what is out of date
        library = os.path.dirname(os.path.abspath(self.get_ext_fullpath(KERNELS)))
        for folder in [library, "custom_ops/lib"]:  # the second is where --inplace copies to
            os.makedirs(folder, exist_ok=True)
        for door in self.extensions[1:]:
            door.library_dirs.append(library)
            door.libraries.append("custom_ops")
            door.runtime_library_dirs.append("$ORIGIN/lib")
        super().build_extensions()


folders = ["csrc/core", "csrc/simd", "csrc/ops", *EXTRA, "csrc/adapters/ort"]
kernels = extension(KERNELS, folders, extra_link_args=["-Wl,-z,nodelete"])  # outlives sessions
python = extension("custom_ops._core", ["csrc/adapters/python"], include_dirs=[get_include()])
stable = {"make": CppExtension, "py_limited_api": True, "flags": STABLE}
torch = extension("custom_ops._torch", ["csrc/adapters/torch"], **stable)
setup(ext_modules=[kernels, python, torch], cmdclass={"build_ext": Build})
