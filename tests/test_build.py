"""The build: an op from outside, what one edit compiles, and what is said where it cannot work."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ninja", reason="builds need pip install 'custom-ops[test]'")
pytest.importorskip("pybind11", reason="builds need pip install 'custom-ops[test]'")

REPOSITORY = Path(__file__).parents[1]
THIRD_OP = REPOSITORY / "tests" / "third_op"

# Under pytest-xdist one worker runs these: they share a tree that takes half a minute to build.
pytestmark = pytest.mark.xdist_group("build")


def run(
    *arguments: str | Path, cwd: Path, succeeds: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs this Python and keeps what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == succeeds, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def copy_sources(tree: Path) -> None:
    """Copies what a build reads, without what one has written."""
    built = shutil.ignore_patterns("*.so", "lib", "__pycache__")
    for name in ("csrc", "custom_ops"):
        shutil.copytree(REPOSITORY / name, tree / name, ignore=built)
    for name in ("setup.py", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(REPOSITORY / name, tree / name)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, built in place together with the op of third_op/."""
    tree = tmp_path_factory.mktemp("tree")
    copy_sources(tree)
    run("setup.py", "build_ext", "--inplace", cwd=tree, CUSTOM_OPS_EXTRA=str(THIRD_OP))
    return tree


def test_an_op_from_outside_passes_every_check(tree: Path) -> None:
    done = run(
        *("-m", "pytest", REPOSITORY / "tests" / "test_ops.py", "-k", "masked_moments"),
        *("-q", "-p", "no:cacheprovider"),
        cwd=tree,
        PYTHONPATH=os.pathsep.join(map(str, (tree, THIRD_OP))),
        CUSTOM_OPS_TEST_MODULES="masked_moments",
    )
    assert " passed" in done.stdout


def objects(tree: Path) -> dict[str, int]:
    """The compiled objects, with the times when they were written."""
    return {o.name: o.stat().st_mtime_ns for o in (tree / "build").rglob("*.o")}


def test_an_edit_compiles_only_what_depends_on_it(tree: Path) -> None:
    before = objects(tree)
    source = tree / "csrc" / "ops" / "mul_add" / "mul_add.cpp"
    text = source.read_text()
    assert text.count("double alpha = 2.0;") == 1
    source.write_text(text.replace("double alpha = 2.0;", "double alpha = 3.0;"))

    def build() -> dict[str, int]:
        run("setup.py", "build_ext", "--inplace", cwd=tree, CUSTOM_OPS_EXTRA=str(THIRD_OP))
        return objects(tree)

    after = build()
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == ["mul_add.o"]
    assert build() == after

    code = "import custom_ops._library as l; print(l.specs()['mul_add'].attributes[0].default)"
    assert run("-c", code, cwd=tree, PYTHONPATH=str(tree)).stdout.strip() == "3.0"


def users_of_avx(built: Path) -> set[str]:
    """The functions of an object or a library that have instructions of AVX, AVX2 or AVX-512."""
    done = subprocess.run(
        ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(built)],
        capture_output=True,
        text=True,
        check=True,
    )
    users = set()
    function = "?"
    for line in done.stdout.splitlines():
        if starts := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            function = starts.group(1)
        elif re.search(r":\s+v(?!err|erw|mcall|mfunc)[a-z0-9]+\s|%[yz]mm|%k[0-7]", line):
            users.add(function)
    return users


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other machines have no AVX")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="the test reads what objdump writes")
def test_only_kernels_of_their_own_namespace_use_avx(tree: Path) -> None:
    """A function of a header is in many objects, and the linker takes one of them for all.

    Were it compiled for AVX, it would reach machines without.
    """
    objects = [*(tree / "build").rglob("*.o"), tree / "custom_ops" / "lib" / "libcustom_ops.so"]
    users = {built: users_of_avx(built) for built in objects}
    kernels = re.compile(r"custom_ops::(\w+::)?(avx2|avx512)::")
    for built, functions in users.items():
        assert not [function for function in functions if not kernels.search(function)], built
    # Else the test looks at the wrong thing.
    sources = [s for s in tree.glob("csrc/**/*.cpp") if "for_each_isa.h" in s.read_text()]
    assert len([built for built in objects[:-1] if users[built]]) == len(sources) > 0
    assert users[objects[-1]]


@pytest.mark.parametrize(
    "environment",
    [{"CXX": "/nonexistent/c++"}, {"CXX": "", "PATH": "/nonexistent"}],
    ids=["CXX", "PATH"],
)
def test_without_a_compiler_the_build_says_so(environment: dict[str, str]) -> None:
    done = run("setup.py", "build_ext", cwd=REPOSITORY, succeeds=False, **environment)
    name = environment["CXX"] or "c++"
    assert done.stderr == (
        f"custom_ops: building needs a C++20 compiler, got none ({name} is not found); "
        "run `apt install g++`, or set CXX, or install a wheel\n"
    )


@pytest.mark.parametrize("version", ["2.12.1+cpu", "1.13.0"])
def test_with_an_old_torch_the_build_says_so(tmp_path: Path, version: str) -> None:
    (tmp_path / "torch.py").write_text(f"__version__ = {version!r}\n")
    path = {"PYTHONPATH": str(tmp_path)}
    done = run("setup.py", "build_ext", cwd=REPOSITORY, succeeds=False, **path)
    assert done.stderr == (
        f"custom_ops: building needs torch >= 2.13, got {version}; pip install 'torch>=2.13'\n"
    )


def test_with_an_old_torch_the_import_says_so(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("__version__ = '2.12.1'\n")
    path = os.pathsep.join(map(str, (tmp_path, REPOSITORY)))
    done = run("-c", "import custom_ops", cwd=tmp_path, succeeds=False, PYTHONPATH=path)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: custom_ops: torch must be 2.13 or later, got 2.12.1; "
        "run `pip install -U 'torch>=2.13'`"
    )


def import_error(package: Path) -> str:
    """What `import custom_ops` says at last, for the package in a folder."""
    # The finder of an editable install would fill in from the repository what is missing.
    code = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'Editable' not in repr(f)]\n"
        "import custom_ops"
    )
    done = run("-c", code, cwd=package, succeeds=False, PYTHONPATH=str(package))
    return done.stderr.splitlines()[-1]


def test_without_the_extensions_the_import_says_so(tmp_path: Path) -> None:
    copy_sources(tmp_path)
    sentence = import_error(tmp_path)
    assert sentence.startswith("ImportError: custom_ops: the extension _")
    assert "must be built for this Python, got none in" in sentence
    assert "run `pip install -e .` in the repository, or install a wheel" in sentence


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_where_the_library_does_not_load_the_import_says_so(tmp_path: Path, damage: str) -> None:
    import custom_ops

    shutil.copytree(Path(custom_ops.__file__).parent, tmp_path / "custom_ops")
    library = tmp_path / "custom_ops" / "lib" / "libcustom_ops.so"
    library.unlink()
    if damage == "damaged":
        library.write_bytes(b"not a library")
    sentence = import_error(tmp_path)
    assert sentence.startswith("ImportError: custom_ops: the extension _")
    assert "must load, got: " in sentence
    assert "libcustom_ops.so" in sentence
    assert "reinstall with `pip install --force-reinstall --no-deps custom-ops`" in sentence
