"""All that people read of a finished study, made from its saved files: report, tables, figures.

<pair>/report.html, table.md, table.csv, views.csv
<pair>/<dataset>/<cell>/edges.csv, views.csv, graph_{base,rl}.json
<pair>/<dataset>/figures/<cell>_*.{png,pdf,svg}
<pair>/figures/*.{png,pdf,svg}: of several cells together
arm_control.json, arm_control.csv: of a sweep with a control, beside its report
along.json, along.csv, figures/along_training.*: of a sweep along a training, beside its report
chain.json, chain.csv, figures/chain.*: of a sweep of a chain of checkpoints, beside its report
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments import store
from experiments.report.along import along_points
from experiments.report.along_figure import along_figure
from experiments.report.along_words import along_csv, along_json, first_change, later_changes
from experiments.report.chain import chain_result
from experiments.report.chain_figure import chain_figure
from experiments.report.chain_page import ChainPage, chain_tables
from experiments.report.chain_words import chain_csv, chain_headline, chain_json, chain_sentences
from experiments.report.control_words import control_csv
from experiments.report.exports import write_edges, write_tables
from experiments.report.figures import cell_figures, figure_file, write_figures
from experiments.report.gather import gather
from experiments.report.page import DRAWN_CELLS, Training, write_page
from experiments.report.results import StudyResult
from experiments.report.sweep_figures import sweep_figures
from experiments.report.views_table import views_csv
from experiments.statistics.against_control import AgainstControl, write_against_control
from experiments.study.chains import Chain


@dataclasses.dataclass(frozen=True, kw_only=True)
class Along:
    """A training whose snapshots are compared with its start.

    Attributes:
      name: of the training.
      steps: the step of each run directory, <workdir>/<pair>.
    """

    name: str
    steps: Mapping[Path, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainRuns:
    """A chain of checkpoints whose comparisons have run.

    Attributes:
      chain: the checkpoints.
      directories: run directory, <workdir>/<pair>, of each comparison that has a report, by the places
        of both checkpoints.
    """

    chain: Chain
    directories: Mapping[tuple[int, int], Path]


def write_report(directory: Path) -> Path:
    """Write everything of one pair.

    Args:
      directory: <workdir>/<pair>, with manifest.json and finished cells.

    Returns:
      path of report.html.

    Raises:
      InputError: a file is missing or broken.
    """
    study = gather([directory])
    manifest = store.read_json(directory / "manifest.json")
    drawn = {}
    for name, cell in zip(manifest["cells"], study.cells, strict=True):
        folder = directory / name
        if cell.views:
            store.write_text(folder / "views.csv", views_csv([cell]))
        write_edges(cell, folder, manifest["models"], manifest.get("estimator", "eap"))
        figures = cell_figures(cell)
        write_figures(
            {figure_file(name, key): drawing for key, drawing in figures.items()}, directory
        )
        if len(drawn) < DRAWN_CELLS:
            drawn[cell.name] = figures
    if len(study.cells) > 1:
        write_figures(sweep_figures(study.cells, study.pairs), directory / "figures")
    write_tables(study, directory)
    store.write_text(directory / "views.csv", views_csv(study.cells))
    folders = {cell.name: name for name, cell in zip(manifest["cells"], study.cells, strict=True)}
    return write_page(study, directory, drawn, folders)


def write_sweep_report(
    workdir: Path,
    directories: list[Path],
    against: Sequence[AgainstControl] = (),
    along: Along | None = None,
    chain: ChainRuns | None = None,
) -> Path:
    """Write the report and tables over several pairs.

    Args:
      workdir: where they go.
      directories: those of the pairs, in it.
      against: arms against the control.
      along: the training whose snapshots the pairs are, if they are.
      chain: the chain whose comparisons the pairs are, if they are.

    Returns:
      path of report.html.
    """
    study = dataclasses.replace(gather(directories), against_control=against)
    if against:
        write_against_control(workdir, against)
        store.write_text(workdir / "arm_control.csv", control_csv(against))
    training = None if along is None else _write_along(workdir, study, along)
    stages = None if chain is None else _write_chain(workdir, study, chain)
    if len(study.cells) > 1:
        write_figures(sweep_figures(study.cells, study.pairs), workdir / "figures")
    write_tables(study, workdir)
    store.write_text(workdir / "views.csv", views_csv(study.cells))
    places = [
        (directory / name).relative_to(workdir).as_posix()
        for directory in directories
        for name in store.read_json(directory / "manifest.json")["cells"]
    ]
    folders = {cell.name: place for place, cell in zip(places, study.cells, strict=True)}
    return write_page(study, workdir, folders=folders, training=training, chain=stages)


def _write_along(workdir: Path, study: StudyResult, along: Along) -> Training:
    """Write along.json, along.csv and the figure of a training's snapshots."""
    points = along_points(study.cells, along.steps)
    store.write_text(workdir / "along.csv", along_csv(points))
    store.write_json(workdir / "along.json", along_json(along.name, points))
    figure = along_figure(points)
    write_figures({"along_training": figure}, workdir / "figures")
    return Training(
        name=along.name,
        first=first_change(points),
        later=later_changes(points),
        figure=figure,
    )


def _write_chain(workdir: Path, study: StudyResult, runs: ChainRuns) -> ChainPage:
    """Write chain.json, chain.csv and the figure of a chain of checkpoints."""
    result = chain_result(runs.chain, runs.directories, study.cells)
    store.write_text(workdir / "chain.csv", chain_csv(result))
    store.write_json(workdir / "chain.json", chain_json(result))
    figure = chain_figure(result)
    write_figures({"chain": figure}, workdir / "figures")
    return ChainPage(
        name=runs.chain.name,
        headline=chain_headline(result),
        sentences=chain_sentences(result),
        tables=chain_tables(result),
        figure=figure,
    )
