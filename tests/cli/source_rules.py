"""The rules of the house that a compiler does not see: which folder may include which, where vendor headers may occur,
how long a file may be, that no tracked file names a place on somebody's machine, and none is left half merged."""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ORDER = ["base", "traces", "costmodel", "planner", "executor"]
MAX_LINES = 600

# A vendor's header and where it may be included.
VENDOR = [
    (re.compile(r"^(cuda|cublas|cudnn|curand|nvtx|cooperative_groups)"), ("executor/cuda/", "executor/transport/nccl")),
    (re.compile(r"^nccl\.h$"), ("executor/transport/nccl",)),
    (re.compile(r"^mpi\.h$"), ("executor/transport/mpi",)),
    (re.compile(r"^(cblas|openblas|lapacke)"), ("executor/cpu/",)),
    (re.compile(r"^glpk\.h$"), ("planner/milp/",)),
    (re.compile(r"^(cjson/)?cJSON"), ("base/",)),
    (re.compile(r"^zlib\.h$"), ("base/", "traces/")),
]
INCLUDE = re.compile(r'^\s*#\s*(?:include|import)\s*([<"])([^>"]+)[>"]', re.M)
MACHINE_PATH = re.compile(rb"(?<![\w.$})-])/(?:work|root|home|Users|workspace)/[\w.]")
HALF_MERGED = re.compile(rb"^(?:<{7}|>{7}) ", re.M)


def violations_of(path, text):
    """Broken include rules of one source file; path is relative to the root, with forward slashes."""
    found = []
    folder = path.split("/")[0]
    for kind, name in INCLUDE.findall(text):
        for pattern, allowed in VENDOR:
            if pattern.match(name) and not path.startswith(allowed):
                found.append(f"{path}: includes {name}, which belongs to {' or '.join(allowed)} alone")
        if kind == "<":
            continue
        target = name.split("/")[0]
        if "/" not in name or target not in ORDER:
            found.append(f"{path}: includes \"{name}\"; expected a path from the root that begins with one of "
                         + ", ".join(ORDER))
        elif ORDER.index(target) > ORDER.index(folder):
            found.append(f"{path}: includes \"{name}\", but {folder}/ stands left of {target}/")
        elif name.startswith("planner/milp/") and not re.match(r"planner/(milp/|command_|main\.c)", path):
            found.append(f"{path}: includes \"{name}\", which is linked into ballast-plan alone")
    return found


def tracked_files():
    result = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [name.decode() for name in result.stdout.split(b"\0") if name]


class Count:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, good, text):
        self.passed += bool(good)
        self.failed += not good
        if not good:
            print(f"failed: {text}")


def check_the_checker(count):
    """Every rule catches what it is for."""
    bad = [("base/a.c", '#include "traces/trace.h"'), ("traces/a.c", '# include "planner/x.h"'),
           ("planner/a.c", '#include "executor/x.h"'), ("executor/a.c", '#include "planner/milp/glpk.h"'),
           ("executor/a.c", "#include <cuda_runtime.h>"), ("planner/a.c", "#include <glpk.h>"),
           ("executor/a.c", "#include <mpi.h>"), ("executor/cuda/a.c", "#include <nccl.h>"),
           ("traces/a.c", "#include <cjson/cJSON.h>"), ("base/a.c", '#include "status.h"'),
           ("executor/route.c", "#include <cblas.h>")]
    for path, text in bad:
        count.check(violations_of(path, text), f"the rule that {path} may not have {text} is not enforced")
    good = [("executor/a.c", '#include "planner/policy.h"'), ("planner/milp/a.c", "#include <glpk.h>"),
            ("executor/cpu/gemm.c", "#include <cblas.h>"), ("planner/command_place.c", '#include "planner/milp/p.h"')]
    for path, text in good:
        count.check(not violations_of(path, text), f"{path} may have {text}")
    count.check(HALF_MERGED.search(b"x\n" + b"<" * 7 + b" HEAD\ny"), "a half merged file is not seen")
    count.check(MACHINE_PATH.search(b"see /wo" + b"rk/data/x"), "a machine's path is not seen")
    count.check(not MACHINE_PATH.search(b"../frame/wo" + b"rk/x and tests/ho" + b"me/y"), "relative paths are fine")


def main():
    count = Count()
    check_the_checker(count)
    try:
        files = tracked_files()
    except (OSError, subprocess.CalledProcessError):
        print("SKIP: not a git checkout (or git is not installed): tracked files are unknown")
        print(f"{count.passed} passed, {count.failed} failed, 1 skipped")
        return count.failed != 0
    for name in files:
        path = ROOT / name
        if not path.is_file():
            continue
        content = path.read_bytes()
        place = MACHINE_PATH.search(content)
        line = content[:place.start()].count(b"\n") + 1 if place else 0
        count.check(not place, f"{name}:{line}: names a path of one machine")
        count.check(not HALF_MERGED.search(content), f"{name}: is half merged")
        if name.endswith((".c", ".h", ".cu", ".cuh")):
            lines = content.count(b"\n")
            count.check(lines <= MAX_LINES, f"{name}: {lines} lines; expected at most {MAX_LINES}")
            if name.split("/")[0] in ORDER:
                broken = violations_of(name, content.decode("utf-8", "replace"))
                count.check(not broken, "; ".join(broken))
    print(f"{count.passed} passed, {count.failed} failed, 0 skipped")
    return count.failed != 0


if __name__ == "__main__":
    sys.exit(main())
