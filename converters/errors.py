"""The exception for a checkpoint that cannot be read or does not fit the model, and the warning for one
that is read but holds something that is left out."""


class CheckpointError(ValueError):
    """One line that names the file, the place, what was expected and what was found."""


class CheckpointWarning(UserWarning):
    """One line that names the file and what in it is ignored; programs print it once, see binary."""
