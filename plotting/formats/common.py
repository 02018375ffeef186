"""What every reader needs: bytes of a file, lines with numbers, strict JSON, strict numbers."""

import json
import math
import re

from plotting.errors import LogError

MAX_BYTES = 1 << 30  # no log is larger; a device file or a foreign blob is refused before it fills memory
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z")


def read_bytes(path):
    """The whole file. LogError when it cannot be read or is too large to be a log."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise LogError(path, 0, f"cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise LogError(path, 0, "is larger than any log (1 GiB)")
    return data


def split_lines(data):
    """(lines without their ends, whether the last line is cut: it has no line end). Foreign bytes become U+FFFD."""
    text = data.decode("utf-8", errors="replace")
    lines = text.split("\n")
    if lines[-1] == "":
        return lines[:-1], False
    return lines, True


def number(text, path, line, what, low=None, high=None):
    """`text` as a finite float within [low, high], else LogError naming `what`."""
    if isinstance(text, str):
        if not _NUMBER.match(text):
            raise LogError(path, line, f"{what}: a number was expected, found {shorten(text)}")
        value = float(text)
    elif isinstance(text, (int, float)) and not isinstance(text, bool):
        value = to_float(text, path, line, what)
    else:
        raise LogError(path, line, f"{what}: a number was expected, found {shorten(text)}")
    if not math.isfinite(value):
        raise LogError(path, line, f"{what}: a finite number was expected, found {shorten(text)}")
    if low is not None and value < low:
        raise LogError(path, line, f"{what}: at least {low:g} was expected, found {value:g}")
    if high is not None and value > high:
        raise LogError(path, line, f"{what}: at most {high:g} was expected, found {value:g}")
    return value


def to_float(value, path, line, what):
    """An int of any size as float; JSON allows integers that no float holds."""
    try:
        return float(value)
    except OverflowError:
        raise LogError(path, line, f"{what}: the number is too large") from None


def integer(text, path, line, what, low=0, high=1 << 53):
    """As number(), but whole; returns int."""
    value = number(text, path, line, what, low, high)
    if value != int(value):
        raise LogError(path, line, f"{what}: a whole number was expected, found {shorten(text)}")
    return int(value)


def numbers(values, path, line, what, low=None, high=None):
    """A JSON array of finite numbers as a list of floats."""
    if not isinstance(values, list):
        raise LogError(path, line, f"{what}: an array of numbers was expected, found {shorten(values)}")
    return [number(v, path, line, f"{what}[{i}]", low, high) for i, v in enumerate(values)]


def json_object(text, path, line):
    """Strict JSON: an object, no duplicate keys, no NaN or Infinity."""

    def pairs(items):
        keys = {}
        for key, value in items:
            if key in keys:
                raise LogError(path, line, f'the key "{shorten(key, 40)}" stands twice')
            keys[key] = value
        return keys

    def constant(name):
        raise LogError(path, line, f"{name} is no JSON number")

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except LogError:
        raise
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deeply or a number too long")
        raise LogError(path, line, f"is not JSON: {reason}") from None
    if not isinstance(value, dict):
        raise LogError(path, line, f"a JSON object was expected, found {shorten(text)}")
    return value


def check_keys(record, path, line, what, required, optional=()):
    """Every required key there and no other than required and optional ones (optional=None: any)."""
    for key in required:
        if key not in record:
            raise LogError(path, line, f'{what}: the key "{key}" is missing')
    if optional is None:
        return
    for key in record:
        if key not in required and key not in optional:
            raise LogError(path, line, f'{what}: unknown key "{shorten(key, 40)}"')


def shorten(value, width=60):
    """A value as it goes into a sentence: one line, printable, not long."""
    text = value if isinstance(value, str) else json.dumps(value)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return repr(text if len(text) <= width else text[: width - 3] + "...") if isinstance(value, str) else (
        text if len(text) <= width else text[: width - 3] + "...")
