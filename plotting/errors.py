"""The one error of the readers: a sentence that names file and line."""

LONGEST = 300


class LogError(Exception):
    """What a log holds is not what its format says. `line` counts from 1; 0 means the file as a whole.

    The sentence may quote the log: it is made one printable line of bearable length."""

    def __init__(self, path, line, sentence):
        sentence = "".join(c if c.isprintable() else "?" for c in sentence)
        if len(sentence) > LONGEST:
            sentence = sentence[:LONGEST // 2] + " ... " + sentence[-LONGEST // 2:]
        self.path, self.line, self.sentence = str(path), line, sentence
        place = f"{path}:{line}" if line else str(path)
        super().__init__(f"{place}: {sentence}")
