"""`experiments.posttrain.train` with a development set of 24 problems; also a program, run so."""

from experiments.posttrain import train

train._PROBE_PROBLEMS = 24

if __name__ == "__main__":
    train.run()
