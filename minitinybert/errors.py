"""The one exception a user is meant to read, and what makes any text fit for one line."""

CRASHED = 70  # the exit status of an error that nobody foresaw (EX_SOFTWARE of sysexits.h)
_LONGEST = 1000  # characters of an error: a path, a name and what to do


class InputError(Exception):
    """Bad input: one clear line saying what was wrong, where (file, row, tensor) and what to do.

    Raised at entry points only (files, command-line values, shapes handed to a model); the command
    line prints it on standard error and exits 2. Whatever a file or a library put into the message,
    it is one line: see `one_line`.
    """

    def __init__(self, message: object = ""):
        super().__init__(one_line(str(message)))


def out_of_memory(error: MemoryError) -> str:
    """One line for the user: NumPy and CuPy say how much was asked for."""
    asked = f" ({error})" if str(error) else ""
    return one_line(f"not enough memory{asked}; try a smaller --batch-size or --max-length, or fewer --threads or --processes")


def one_line(text: str) -> str:
    """`text` without line ends, which become spaces. Other characters that steer a terminal, and
    halves of surrogate pairs, are shown as Python writes them; the middle of a long text is left out.
    """
    joined = " ".join(part for part in map(str.strip, text.splitlines()) if part)
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in joined)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
