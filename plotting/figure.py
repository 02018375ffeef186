"""What a builder hands to a painter, and how it becomes files."""

import json
import os
import sys
from dataclasses import dataclass, field


@dataclass
class Figure:
    """`numbers` goes to NAME.json as it is (plus "missing"), `honest` to NAME_honest.json; `extra` is for painters."""

    name: str
    numbers: dict = field(default_factory=dict)
    honest: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)
    missing: list = field(default_factory=list)

    def drawable(self):
        return bool(self.numbers)

    def lacks(self, sentence):
        """Notes something that the logs do not hold; said once."""
        if sentence not in self.missing:
            self.missing.append(sentence)


def write_json(path, value):
    """Whole or not at all."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    beside = f"{path}.part"
    with open(beside, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(beside, path)


def say(sentence):
    """A message to the user."""
    print(sentence, file=sys.stderr)
