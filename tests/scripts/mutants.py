"""``python -m tests.scripts.mutants``: how much of csrc the tests hold in place.

Seeded small changes, one at a time: an operator, a bound, a constant, two arguments swapped, a
barrier or a wait dropped. Each is compiled in a scratch copy of the tree, for one instruction set,
or one architecture and type, and has to fail the tests that cover its file. What survives is
printed as a diff: it wants a test, or a line in EQUIVALENT that says why no result depends on it.

CUDA's are run by ``GPU_RUNNER``, as .ci/run does. The scratch copy is kept for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sspcab_cuda

from ..cpu.test_capabilities import CAPABILITIES

ROOT = Path(__file__).resolve().parents[2]
# Files that are compiled from the same headers: for instruction sets, and for types of CUDA's
# convolutions.
KERNELS = re.compile(r"csrc/(?:cpu/isa/(?!dispatch)(\w+)\.cpp|cuda/convolution/sm\d+/(\w+)\.cu)$")
CUDA_TYPES = ("half", "bfloat16", "tf32")

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

# A failure needn't be shrunk. conftest.py's settings inherit from those that it finds.
PYTEST = """
import hypothesis, pytest, sys
hypothesis.settings.register_profile("unshrunk", phases=[hypothesis.Phase.generate])
hypothesis.settings.load_profile("unshrunk")
sys.exit(pytest.main(sys.argv[1:]))
"""

REWRITE = "ignore::pytest.PytestAssertRewriteWarning"  # hypothesis is imported before

# Which tests hold a file, in the shell's words, the quickest first: the first pattern that fits its
# path.
TESTS = (
    (
        r"csrc/(checks|layout)\.h|csrc/operators/",
        "python/test_errors operators/test_{arguments,properties,layouts,forward}",
    ),
    (
        r"csrc/cpu/host/reconstruction_loss",
        "operators/test_properties python/test_losses operators/test_layouts python/test_errors",
    ),
    (r"csrc/cpu/host/squeeze_excite", "operators/test_{properties,layouts} python/test_errors"),
    (
        r"csrc/cpu/convolution/plan",
        "cpu/test_plan operators/test_properties cpu/test_direct_winograd_windows",
    ),
    (
        r"csrc/cpu/|csrc/geometry",
        "operators/test_properties cpu/test_direct_winograd_windows "
        "operators/test_{forward,backward}",
    ),
    (
        r"csrc/cuda/convolution/plan|csrc/cuda/plan/",
        "cuda/test_{plan,groups,tiles_and_streams} operators/test_forward",
    ),
    (r"csrc/cuda/convolution/sm90", "cuda/test_{hopper,tiles_and_streams} operators/test_forward"),
    (r"csrc/cuda/", "cuda/test_tiles_and_streams operators/test_{forward,backward,layouts}"),
    (r"csrc/", "packaging/test_extension operators/test_{opcheck,arguments,layouts,forward}"),
)
# Among those, not the one that repeats itself with eight seeds.
QUICK = "not (test_direct_winograd_windows and test_accuracy and float32)"
# Every survivor of those has these to pass, too.
MORE_TESTS = {
    False: "cpu/test_{direct_winograd_windows,guarded_memory} "
    "operators/test_{layouts,numerics,nan,determinism}",
    True: "cuda/test_hopper operators/test_{nan,determinism}",
}

# Path and text of lines on which no result depends, and why.
EQUIVALENT = (
    (
        r"csrc/cpu/convolution/plan\.",
        r"Cost|costs|never",
        "a way's price: all ways compute the same",
    ),
    (
        r"csrc/cpu/",
        r"Workers\(.*run|per_worker|kItemsPerWorker|kIdle",
        "how threads share the work",
    ),
    (r"csrc/cpu/", r"k\w+Bytes = |kPixelsPerBand|kOverlap|kManyItems", "sizes of what caches hold"),
    (r"csrc/cpu/", r"kGradientChunk|kMaxRun|kInputs = ", "how much is computed in registers"),
    (r"csrc/cpu/buffer\.h", r"page|line|first|last|MADV", "alignment and huge pages"),
    (r"csrc/cpu/", r"prefetch", "what is loaded early"),
    (r"csrc/cpu/isa/convolution/pack\.h", r"step == 1", "the same copy, faster"),
    (r"csrc/cpu/isa/passes/", r"totals\[c\] \+=", "each band has totals of its own, at first 0"),
    (r"csrc/cuda/convolution/plain/", r"count_ % 64", "how many are added in a row"),
    (r"csrc/cuda/host/", r"pieces of the workspace", "offsets of what isn't there"),
    (r"csrc/cuda/", r"prefetch|kStages|launch_bounds", "what is loaded early, and how much"),
)

# Pattern of a piece of code, and what to put in its place.
CHANGES = (
    (r" < ", (" <= ",)),
    (r" <= ", (" < ",)),
    (r" > ", (" >= ",)),
    (r" >= ", (" > ",)),
    (r" == ", (" != ",)),
    (r" != ", (" == ",)),
    (r" && ", (" || ",)),
    (r" \|\| ", (" && ",)),
    (r" \+ ", (" - ",)),
    (r" - ", (" + ",)),
    (r" \* ", (" + ",)),
    (r" / ", (" * ",)),
    (r" % ", (" / ",)),
    (r" \+= ", (" -= ", " = ")),
    (r"(?<=[(\s])!(?=\w)", ("",)),
    (r"(?<=(?:std|ute)::)min\b|(?<=[ (])min(?=\()", ("max",)),
    (r"(?<=(?:std|ute)::)max\b|(?<=[ (])max(?=\()", ("min",)),
    (r"\btrue\b", ("false",)),
    (r"\bfalse\b", ("true",)),
    (r"(?<=\()(\w+), (\w+)(?=[,)])", (r"\2, \1",)),
    (r"(?<=, )(\w+), (\w+)(?=\))", (r"\2, \1",)),
    (r"(?<![\w.])(\d+)(?![\w.])", (lambda m: str(int(m[1]) + 1), lambda m: str(int(m[1]) - 1))),
    (r"^\s+[\w:.]*(?:sync|wait|fence|arrive|commit)\w*(?:<\w+>)?\(.*\);$", ("",)),
)
NO_CODE = re.compile(r"\s*(//|#|using |template|static_assert|namespace|typedef|}|$)|.*\bunroll\b")


@dataclass(frozen=True)
class Mutant:
    path: str
    line: int  # from 1
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}\n  - {self.old.strip()}\n  + {self.new.strip()}"


def mutants_of(path: str, text: str) -> Iterator[Mutant]:
    for number, line in enumerate(text.splitlines(), 1):
        code = line.split("//")[0].rstrip()
        if NO_CODE.match(code) or any(
            re.search(where, path) and re.search(what, line) for where, what, _ in EQUIVALENT
        ):
            continue
        for pattern, replacements in CHANGES:
            for match in re.finditer(pattern, code):
                if code[: match.start()].count('"') % 2:  # within a text
                    continue
                for replacement in replacements:
                    put = (
                        match.expand(replacement)
                        if isinstance(replacement, str)
                        else replacement(match)
                    )
                    new = code[: match.start()] + put + code[match.end() :]
                    if new != code:
                        yield Mutant(path, number, line, new)


def kind_of(path: str) -> str:
    """Instruction set or type that a file of kernels is for."""
    kernels = KERNELS.search(path)
    return kernels[1] or kernels[2] if kernels else ""


class Tree:
    """A scratch copy, built once; then one change at a time is compiled, tested and taken back."""

    def __init__(self, folder: Path, cuda: bool) -> None:
        self.folder, self.cuda = folder.resolve(), cuda
        for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() or target.read_bytes() != (ROOT / name).read_bytes():
                shutil.copy(ROOT / name, target)
        print(f"mutants: building {self.folder}", flush=True)
        compiler = self.folder / "c++"  # compiles four times as fast as with -O3
        compiler.write_text(f'#!/bin/sh\nexec {os.environ.get("CXX", "c++")} "$@" -O1\n')
        compiler.chmod(0o755)
        cuda_switches = {"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "8.0+PTX;9.0a+PTX"}
        build = self.call(
            [sys.executable, "setup.py", "build_ext", "--inplace", "--force"],
            {"CXX": str(compiler), **(cuda_switches if cuda else {"SSPCAB_NO_CUDA": "1"})},
        )
        if build.returncode:
            sys.exit(build.stdout[-8000:])
        (line,) = [line for line in build.stdout.splitlines() if " -shared " in line]
        (self.library,) = (self.folder / "sspcab_cuda").glob("_C.*")
        self.link = shlex.split(line)
        self.link[self.link.index("-o") + 1] = str(self.library)  # setuptools copies it there
        (objects,) = (self.folder / "build").glob(f"{platform.machine()}-*")

        def ninja(tool: str) -> str:
            return subprocess.check_output(["ninja", "-t", tool], cwd=objects, text=True)

        self.steps = {step["output"]: step for step in json.loads(ninja("compdb"))}
        self.inputs: dict[str, set[str]] = {}  # of every object
        current = ""
        for line in ninja("deps").splitlines():
            if line.startswith(" "):
                self.inputs[current].add(str((objects / line.strip()).resolve()))
            elif line:
                current = line.split(": #")[0]
                self.inputs[current] = set()
        self.paths = {
            os.path.relpath(path, self.folder)
            for inputs in self.inputs.values()
            for path in inputs
            if path.startswith(f"{self.folder}/csrc/")
        }

    def call(
        self, command: Sequence[str], env: dict[str, str], timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PATH": PATH, **env},
            text=True,
            timeout=timeout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def compile(self, path: str, kind: str) -> bool:
        """Every object that has the file within; of KERNELS those of one kind alone."""
        link = self.link
        for output, inputs in self.inputs.items():
            if str(self.folder / path) not in inputs:
                continue
            if kind_of(self.steps[output]["file"]) not in ("", kind):
                continue
            command = self.steps[output]["command"]
            if " -gencode" in command:
                arch = "90a" if "/sm90/" in output else "80"
                command = re.sub(r"-gencode[= ]\S+", "", command)
                command += f" -gencode=arch=compute_{arch},code=compute_{arch}"
            mutated = str(self.folder / "build" / "mutated" / Path(output).relative_to(self.folder))
            Path(mutated).parent.mkdir(parents=True, exist_ok=True)
            command = command.replace(f"{output}.d", "/dev/null").replace(output, mutated)
            if self.call(["bash", "-c", command], {"CCACHE_DISABLE": "1"}).returncode:
                return False
            # First, so that inline functions are taken from there.
            rest = [word for word in link if word != output]
            position = next(i for i, word in enumerate(rest) if word.endswith(".o"))
            link = [*rest[:position], mutated, *rest[position:]]
        return self.call(link, {}).returncode == 0

    def fails(self, tests: str, path: str, kind: str, timeout: float | None = None) -> str:
        """The test that fails, if one does; or that they don't end."""
        names = ["bash", "-c", f"printf 'tests/%s.py ' {tests}"]
        files = subprocess.check_output(names, text=True).split()
        quick = [] if tests == MORE_TESTS[self.cuda] else ["-k", QUICK]
        options = ["-x", "-q", "-p", "no:cacheprovider", "-W", REWRITE, "-m", "not slow"]
        command = [sys.executable, "-c", PYTEST, *quick, *options, *files]
        if self.cuda:
            command[-len(files) - 1] = "cuda and not slow"
            sm = "90" if "/sm90/" in path or "hopper" in tests else "80"
            command = [os.environ["GPU_RUNNER"], "--sm", sm, "python", *command[1:]]
        try:
            env = {} if self.cuda else {"SSPCAB_CPU_CAPABILITY": kind}
            done = self.call(command, env, timeout)
        except subprocess.TimeoutExpired:
            return "time is up"
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        return failed[0] if failed else f"exit code {done.returncode}" if done.returncode else ""


def try_out(tree: Tree, mutant: Mutant, tests: str, kind: str, timeout: float) -> str | None:
    """What catches the mutant, "" for a survivor; None if it is no program."""
    file = tree.folder / mutant.path
    original, library = file.read_text(), tree.library.read_bytes()
    lines = original.splitlines(keepends=True)
    lines[mutant.line - 1] = mutant.new + "\n"
    try:
        file.write_text("".join(lines))
        if not tree.compile(mutant.path, kind):
            return None
        return tree.fails(tests, mutant.path, kind, timeout) or tree.fails(
            MORE_TESTS[tree.cuda], mutant.path, kind
        )
    finally:
        file.write_text(original)
        tree.library.write_bytes(library)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("device", choices=["cpu", "cuda"])
    parser.add_argument("--count", type=int, default=30, help="mutants to judge (default: 30)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", default="", help="pattern that their paths have to match")
    parser.add_argument(
        "--folder", type=Path, help="of the scratch copy (default: build/mutants-…)"
    )
    options = parser.parse_args()
    cuda = options.device == "cuda"
    tree = Tree(options.folder or ROOT / "build" / f"mutants-{options.device}", cuda)

    there = str(sspcab_cuda.build_info()["cpu_capability"])
    kinds = CUDA_TYPES if cuda else CAPABILITIES[: CAPABILITIES.index(there) + 1]
    choice = random.Random(options.seed)
    drawn = [
        mutant
        for path in sorted(tree.paths)
        if path.startswith("csrc/cuda/") == cuda and re.search(options.files, path)
        for mutant in mutants_of(path, (ROOT / path).read_text())
    ]
    choice.shuffle(drawn)
    print(f"mutants: {len(drawn)} to draw from", flush=True)
    judged: list[tuple[Mutant, str]] = []
    seconds_of: dict[str, float] = {}  # tests of the code as it is
    for mutant in drawn:
        kind = kind_of(mutant.path) or choice.choice(kinds)
        tests = next(tests for pattern, tests in TESTS if re.match(pattern, mutant.path))
        start = time.monotonic()
        if tests not in seconds_of:
            if failed := tree.fails(tests, mutant.path, kind):
                sys.exit(f"mutants: {failed} fails without any change")
            seconds_of[tests] = time.monotonic() - start
            start = time.monotonic()
        caught_by = try_out(tree, mutant, tests, kind, 60 + 3 * seconds_of[tests])
        if caught_by is None:
            continue
        judged.append((mutant, caught_by))
        verdict = f"caught by {caught_by}" if caught_by else "SURVIVED"
        seconds = time.monotonic() - start
        print(f"{len(judged)}. {mutant}\n  {kind}: {verdict} ({seconds:.0f} s)", flush=True)
        if len(judged) == options.count:
            break
    survivors = [mutant for mutant, caught_by in judged if not caught_by]
    print(f"mutants: {len(judged) - len(survivors)} of {len(judged)} caught")
    for mutant in survivors:
        print(mutant)


if __name__ == "__main__":
    main()
