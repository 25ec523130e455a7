"""The study: absl binaries, and the stages that they call."""

import os

from converters.cuda_plugin import leave_out

leave_out()
# transformers is here for its tokenizers; that it found no PyTorch is no news to anybody.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
