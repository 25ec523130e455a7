"""What a user did wrong, in one line."""


class InputError(ValueError):
    """One line that names the file or flag, the place, what was expected and what was found."""
