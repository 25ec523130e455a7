"""The one exception for a checkpoint that cannot be read or does not fit the model."""


class CheckpointError(ValueError):
    """One line that names the file, the place, what was expected and what was found."""
