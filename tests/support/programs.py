"""What the tests of every program share: counting checks, running a program that was built, a scratch folder."""
import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("BL_BUILD", ROOT / "build/release"))


class Check:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def __call__(self, good, what):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            print(f"failed: {what}", flush=True)
        return bool(good)

    def near(self, value, expected, tolerance, what):
        return self(abs(value - expected) <= tolerance, f"{what}: {value}, expected {expected} within {tolerance}")

    def skip(self, reason):
        self.skipped += 1
        print(f"SKIP: {reason}", flush=True)

    def end(self):
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return 1 if self.failed else 0


def folder():
    return tempfile.TemporaryDirectory()


def run(program, *arguments, env=None, timeout=280):
    """Exit code, stdout, stderr."""
    done = subprocess.run([str(BUILD / program), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=timeout, env=dict(os.environ, **(env or {})))
    return done.returncode, done.stdout, done.stderr


def must(program, *arguments, env=None):
    code, out, err = run(program, *arguments, env=env)
    if code != 0:
        raise RuntimeError(f"{program} {' '.join(map(str, arguments))}: exit {code}: {err}")
    return out
