"""The one error of the readers: a sentence that names file and line."""


class LogError(Exception):
    """What a log holds is not what its format says. `line` counts from 1; 0 means the file as a whole."""

    def __init__(self, path, line, sentence):
        self.path, self.line, self.sentence = str(path), line, sentence
        place = f"{path}:{line}" if line else str(path)
        super().__init__(f"{place}: {sentence}")
