"""Dependencies run one way: modules → functional → ops → dispatcher → csrc."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import sspcab_cuda

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(sspcab_cuda.__file__).parent
CSRC = ROOT / "csrc"

# What each Python file may import of this package.
ALLOWED: dict[str, set[str]] = {
    "__init__": {
        "_extension",
        "convert",
        "decompositions",
        "explain",
        "explanation",
        "flops",
        "functional",
        "losses",
        "modules",
        "reference",
    },
    "explain": {
        "_extension",
        "checks",
        "explanation",
        "functional",
        "losses",
        "modules",
        "operator_checks",
    },
    "explanation": set(),
    "modules": {"_extension", "checks", "functional", "losses", "reference", "submodules"},
    "submodules": {"torch_private"},
    "torch_private": set(),
    "decompositions": {"_extension", "reference", "torch_private"},
    "losses": {"checks", "torch_private"},
    "convert": {"equivalence", "implementations", "modules"},
    "implementations": {"reference"},
    "equivalence": {"losses", "torch_private"},
    "functional": {"ops", "reference", "checks", "fakes", "operator_checks", "torch_private"},
    "ops": {"fakes", "transforms", "torch_private"},
    "transforms": {"decompositions", "operator_checks", "torch_private"},
    "fakes": {"_extension", "operator_checks"},
    "flops": {"_extension"},
    "operator_checks": {"checks", "reference"},
    "checks": {"_extension", "reference"},
    "reference": set(),
    "_extension": {"_C"},
}


def imports_of(path: Path) -> set[str]:
    """Modules that a file of the package imports: 'torch.nn', or '.ops' for its own."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            found |= {f".{node.module or a.name}" for a in node.names}
    return found


@pytest.mark.parametrize("name", ALLOWED)
def test_python(name: str) -> None:
    own = {m.lstrip(".") for m in imports_of(PACKAGE / f"{name}.py") if m.startswith(".")}
    assert own <= ALLOWED[name]


def test_every_python_file_has_its_place() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(ALLOWED)


def test_reference_imports_torch_alone() -> None:
    roots = {name.split(".")[0] for name in imports_of(PACKAGE / "reference.py")}
    assert roots == {"torch", "typing", "collections", "__future__"}


def test_private_names_of_torch_in_one_file() -> None:
    private = re.compile(r"\btorch(\.\w+)*\._(?!_)|from torch\S* import _|\b_current_level\b")
    users = {path.name for path in PACKAGE.rglob("*.py") if private.search(_code_of(path))}
    assert users == {"torch_private.py"}


def _code_of(path: Path) -> str:
    """Without docstrings, comments and messages."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.unparse(tree)


def test_demo_and_benchmarks_use_the_public_package() -> None:
    private = re.compile(r"torch\.ops\.sspcab|sspcab_cuda(\.| import )(ops|_C|_extension|checks)\b")
    files = [*(PACKAGE / "demo").glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert files
    users = {path.name for path in files if private.search(path.read_text())}
    assert users == {"one_step.py"}  # forces tiles, for tools that count and measure them


def test_metrics_know_arrays_alone() -> None:
    files = list((ROOT / "benchmarks" / "detection" / "metrics").glob("*.py"))
    names = {name for path in files for name in imports_of(path)}
    assert {name[1:] for name in names if name.startswith(".")} <= {path.stem for path in files}
    roots = {name.split(".")[0] for name in names} - {""}
    assert roots == {"__future__", "collections", "numpy", "scipy", "sklearn", "typing"}


def test_data_sets_know_nothing_of_their_users() -> None:
    files = list((ROOT / "benchmarks" / "detection" / "data").glob("*.py"))
    assert files
    for path in files:
        assert not re.search(r"from \.\.|benchmarks", path.read_text()), path.name


def includes_of(path: Path) -> set[str]:
    return set(re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE))


def sources(folder: str) -> list[Path]:
    return [path for path in (CSRC / folder).rglob("*") if path.is_file()]


def test_only_bindings_know_python() -> None:
    for path in sources("."):
        knows = any(name.startswith(("pybind11", "Python.h")) for name in includes_of(path))
        assert knows == (path.name == "bindings.cpp"), path.name


def test_cpu_and_cuda_don_t_know_each_other() -> None:
    """Nor does what is the same for both know either."""
    for here, others in (("cpu", "cuda"), ("cuda", "cpu"), ("operators", "cpu cuda")):
        assert sources(here)
        for path in sources(here):
            known = {name.split("/")[0] for name in includes_of(path)}
            assert not known & {*others.split()}, path.name


def test_arguments_are_checked_in_one_place() -> None:
    """What an operator is given is the same on every device; `config` is the device's own."""
    rules = re.compile(
        r"\bcheck_(dim|image|shape|device|tensor|same_image|parameter|sub_kernels|biases|"
        r"excitation\w*|grad_loss|needs)\("
    )
    holders = {path.name for path in sources(".") if rules.search(path.read_text())}
    assert holders == {"checks.h", "arguments.h"}


# Whose headers each room of a device's part may include, besides its own.
ROOMS: dict[str, set[str]] = {
    "cpu": set(),
    "cpu/geometry": set(),
    "cpu/isa": {"cpu/geometry", "cpu/isa/convolution", "cpu/isa/passes"},
    "cpu/isa/convolution": set(),
    "cpu/isa/passes": set(),
    "cpu/convolution": {"cpu", "cpu/geometry", "cpu/isa"},
    "cpu/host": {"cpu", "cpu/geometry", "cpu/isa", "cpu/convolution"},
    "cuda": set(),
    "cuda/host": {"cuda", "cuda/plan", "cuda/convolution", "cuda/convolution/plain"},
    "cuda/plan": {"cuda", "cuda/convolution"},
    "cuda/passes": {"cuda"},
    "cuda/convolution": {"cuda"},
    "cuda/convolution/plain": {"cuda", "cuda/convolution"},
    "cuda/convolution/sm80": {"cuda", "cuda/convolution"},
    "cuda/convolution/sm90": {"cuda", "cuda/convolution"},
}


def test_rooms() -> None:
    seen = set()
    for path in [*sources("cpu"), *sources("cuda")]:
        room = path.parent.relative_to(CSRC).as_posix()
        seen.add(room)
        rooms = {str(Path(n).parent) for n in includes_of(path) if n.startswith(("cpu/", "cuda/"))}
        assert rooms <= ROOMS[room] | {room}, path.name
    assert seen == {*ROOMS}


def test_host_rooms_alone_know_torch() -> None:
    """Device code, plans and inner loops take plain data; headeronly has the half-precision types,
    and threads are PyTorch's."""
    plain = [path for path in [*sources("cpu"), *sources("cuda")] if path.parent.name != "host"]
    assert len(plain) > 1
    for path in [CSRC / "geometry.h", *plain]:
        known = {name for name in includes_of(path) if name.startswith("torch")}
        if path.name == "workers.h":
            known -= {"torch/csrc/stable/ops.h"}
        assert all(name.startswith("torch/headeronly/util/") for name in known), path.name
        assert not known or path.name == "kernels.h", path.name


def test_only_the_stable_interface_of_torch() -> None:
    for path in sources("."):
        for name in includes_of(path):
            if name.startswith(("torch", "ATen", "c10")):
                assert name.startswith(("torch/csrc/stable/", "torch/headeronly/")), path.name


def test_only_geometry_knows_the_corners() -> None:
    """Corner numbers become rows and columns, and are chosen among, in one place."""
    knows = re.compile(
        r"\bcorner\w*\b[\w\s()^]*(&\s*1|>>\s*1|%\s*2|/\s*2)\b"  # bits of a number
        r"|\bcorner\w*\s*(\^|[=!]=\s*\d|:\s*\{)"  # numbers that mean one corner or another
    )
    for line in (
        "row = corner & 1;",
        "((corner ^ flip) & 1) * 6 + ((corner ^ flip) >> 1) * 2",
        "const bool right = static_cast<int>(tap.corner) / 2;",
        "for (int64_t corner : {0, 3}) {",
        "if (tap.corner == 2) {",
    ):
        assert knows.search(line), line
    holders = {path.name for path in sources(".") if knows.search(path.read_text())}
    assert holders == {"geometry.h"}


def test_every_kernel_waits_for_earlier_launches() -> None:
    """First of all: from 9.0 on it may have begun before they have ended."""
    kernels = 0
    for path in sources("cuda"):
        text = path.read_text()
        for begin in re.finditer(r"__global__", text):
            body = text.index(") {\n", begin.end()) + 4
            assert text[body:].lstrip().startswith("wait_for_earlier_launches();"), path.name
            kernels += 1
        assert "<<<" not in text, f"{path.name}: launch() knows what kernels may overlap"
    assert kernels > 10
