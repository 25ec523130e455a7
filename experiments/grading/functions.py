"""Names of functions and constants that stand in formulas and are no words of an answer."""

# Those that people also write without a backslash, as in a program.
ELEMENTARY = (
    *("pi", "sqrt", "exp", "log", "ln", "sin", "cos", "tan", "cot", "sec", "csc"),
    *("arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"),
)
FUNCTIONS = (*ELEMENTARY, "mod", "min", "max", "det", "dim")
# Signs of the same kind that only a formula has.
OPERATORS = ("arccot", "infty", "dx", "dy", "dt")
