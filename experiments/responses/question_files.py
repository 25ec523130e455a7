"""Where the questions of a data set lie: in a folder of the user's, or on the Hugging Face Hub."""

import dataclasses
from pathlib import Path

from experiments.errors import InputError

ENDINGS = (".jsonl", ".json", ".parquet", ".csv", ".tsv", ".jsonl.gz", ".json.gz", ".csv.gz")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Fields of a data set, where it lies in a folder, and where the Hub keeps its test split.

    Attributes:
      question, answer: names of the fields. An empty `answer` means that rows need not have one.
      folders: folders (and file stems) under DATA_DIR, the preferred one first.
      repository: data set repository on the Hub, or None.
      files: patterns of the test split's files in it.
    """

    question: str
    answer: str
    folders: tuple[str, ...]
    repository: str | None = None
    files: tuple[str, ...] = ()


SOURCES = {
    "gsm8k": Source(
        question="question",
        answer="answer",
        folders=("gsm8k",),
        repository="openai/gsm8k",
        files=("main/test*.jsonl", "main/test*.parquet"),
    ),
    "math": Source(
        question="problem",
        answer="",
        folders=("math", "math500", "MATH"),
        repository="DigitalLearningGmbH/MATH-lighteval",
        files=("data/test*.jsonl", "data/test*.parquet"),
    ),
    "college_math": Source(
        question="question",
        answer="answer",
        folders=("college_math",),
        repository="di-zhang-fdu/College_Math_Test",
        files=("*.jsonl", "*.parquet"),
    ),
}


def local_file(dataset: str, source: Source, data_dir: Path) -> Path:
    """The file or folder of a data set in a folder.

    Raises:
      InputError: there is none, or the folder is none.
    """
    if not data_dir.is_dir():
        raise InputError(
            f"{data_dir}: expected a folder with question files (data_dir), found none"
        )
    names = [
        name
        for folder in source.folders
        for name in (
            *(f"{folder}/test{end}" for end in ENDINGS),
            *(folder + end for end in ENDINGS),
        )
    ]
    files = [data_dir / name for name in names if (data_dir / name).is_file()]
    if files:
        return files[0]
    folders = [data_dir / folder for folder in source.folders]
    if dataset == "math":
        folders.append(data_dir)  # the benchmark's own folder
    for folder in folders:
        if folder.is_dir() and (
            any(folder.rglob("*.parquet")) or any(folder.glob("**/*/[0-9]*.json"))
        ):
            return folder
    shown = [
        name for folder in source.folders for name in (f"{folder}/test.jsonl", f"{folder}.jsonl")
    ]
    raise InputError(
        f"{data_dir}: expected the questions of {dataset} in {' or '.join(shown)} (or .json, .csv, "
        f".parquet, .gz, or a folder {source.folders[0]}), found none of them"
    )


def hub_files(dataset: str, source: Source) -> list[Path]:
    """The test split's files from the Hub or its local cache; jsonl is preferred to parquet.

    Raises:
      InputError: it cannot be reached, or has no such file.
    """
    # Imported here: it takes half a second, and local files do not need it.
    import huggingface_hub

    advice = f"save it as DATA_DIR/{source.folders[0]}/test.jsonl and pass --data_dir=DATA_DIR"
    try:
        folder = huggingface_hub.snapshot_download(
            source.repository, repo_type="dataset", allow_patterns=list(source.files)
        )
    # The Hub's client raises its own errors, httpx's and OSError, and promises no common base.
    except Exception as error:
        raise InputError(
            f"{dataset}: cannot download data set {source.repository} from the Hugging Face Hub "
            f"({type(error).__name__}); {advice}"
        ) from error
    for pattern in source.files:
        found = sorted(Path(folder).glob(pattern))
        if found:
            return found
    raise InputError(
        f"{dataset}: expected {' or '.join(source.files)} in data set {source.repository} of the "
        f"Hugging Face Hub, found no such file; {advice}"
    )
