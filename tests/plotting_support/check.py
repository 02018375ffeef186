"""Counts checks and prints the summary line that tests/run reads."""

import os
import shutil
import subprocess
import sys
import tempfile
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.path.join(ROOT, "..", "shared", "data")
REFERENCE = os.path.join(ROOT, "..", "shared", "reference")


class Check:
    """check(condition, words) counts; finish() prints the summary and gives the exit code."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def __call__(self, condition, words):
        if condition:
            self.passed += 1
            return True
        frame = sys._getframe(1)
        while frame.f_back and os.path.basename(frame.f_code.co_filename) == "check.py":
            frame = frame.f_back
        self.failed += 1
        print(f"{os.path.relpath(frame.f_code.co_filename, ROOT)}:{frame.f_lineno}: failed: {words}")
        return False

    def near(self, value, expected, tolerance, words):
        """Relative to `expected`; None only equals None."""
        if value is None or expected is None:
            return self(value is expected, f"{words}: {value} is not {expected}")
        return self(abs(value - expected) <= tolerance * max(abs(expected), 1e-12), f"{words}: {value} is not {expected}")

    def skip(self, reason):
        self.skipped += 1
        print(f"skipped: {reason}")

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return 1 if self.failed else 0


def run_tests(check, tests):
    """Runs test(check, folder) each in a folder of its own that is removed afterwards; an exception is a failure."""
    for test in tests:
        folder = tempfile.mkdtemp(prefix="plot_")
        try:
            test(check, folder)
        except Exception:  # a test that breaks must not hide the others
            check(False, f"{test.__name__} raised:\n{traceback.format_exc()}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return check.finish()


def runme(folder, *arguments, **settings):
    """RUNME-a.sh run in `folder`: (exit code, stdout, stderr, the new output folder or None)."""
    before = set(os.listdir(folder))
    done = subprocess.run([os.path.join(ROOT, "RUNME-a.sh"), *arguments], cwd=folder, capture_output=True, text=True,
                          timeout=300, check=False, env={**os.environ, **settings})
    made = [name for name in sorted(set(os.listdir(folder)) - before) if name.startswith("outputs_from_log_")]
    return done.returncode, done.stdout, done.stderr, os.path.join(folder, made[0]) if made else None
