"""All that people read of a finished study, made from its saved files: report, tables, figures.

<pair>/report.html, table.md, table.csv, views.csv
<pair>/<dataset>/<cell>/edges.csv, views.csv, graph_{base,rl}.json
<pair>/<dataset>/figures/<cell>_*.{png,pdf,svg}
<pair>/figures/*.{png,pdf,svg}: of several cells together
along.csv, along.json, figures/along_training.*: of a training's snapshots
"""

from collections.abc import Mapping
from pathlib import Path

from experiments import store
from experiments.report.along import (
    Point,
    accuracy_point,
    along_csv,
    along_json,
    metric_points,
    sentence,
)
from experiments.report.along_figure import along_figure
from experiments.report.exports import write_edges, write_tables
from experiments.report.figures import cell_figures, figure_file, write_figures
from experiments.report.gather import gather
from experiments.report.page import DRAWN_CELLS, Training, write_page
from experiments.report.results import StudyResult
from experiments.report.sweep_figures import sweep_figures
from experiments.report.views_table import views_csv
from experiments.responses.generated import read_answers
from experiments.statistics.compare import proportion_interval


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
    workdir: Path, directories: list[Path], along: Mapping[Path, int] | None = None, name: str = ""
) -> Path:
    """Write the report and tables over several pairs to `workdir`; returns the report's path.

    Args:
      workdir: where they go.
      directories: <workdir>/<pair> of finished runs.
      along: the step of each directory, where the pairs are snapshots of one training.
      name: of that training.
    """
    study = gather(directories)
    training = None if along is None else _write_along(workdir, study, along, name)
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
    return write_page(study, workdir, folders=folders, training=training)


def _write_along(
    workdir: Path, study: StudyResult, steps: Mapping[Path, int], name: str
) -> Training:
    """Write along.csv, along.json and the figure of a training's snapshots."""
    points: list[Point] = []
    for directory, step in steps.items():
        pair = store.read_json(directory / "manifest.json")["pair"]["key"]
        cells = [cell for cell in study.cells if cell.pair == pair]
        for cell in cells:
            points += metric_points(step, cell)
        for dataset in dict.fromkeys(cell.dataset for cell in cells):
            given = [
                {answer.idx: bool(answer.score) for answer in read_answers(path)}
                for path in (
                    directory / dataset / f"responses_{side}.jsonl" for side in ("base", "rl")
                )
            ]
            both = sorted(given[0].keys() & given[1].keys())
            if both:
                base, rl = ([side[idx] for idx in both] for side in given)
                interval = proportion_interval(sum(rl), len(rl))
                points.append(accuracy_point(step, dataset, base, rl, interval))
    points.sort(key=lambda point: point.step)
    store.write_text(workdir / "along.csv", along_csv(points))
    store.write_json(workdir / "along.json", along_json(name, points))
    figure = along_figure(points)
    write_figures({"along_training": figure}, workdir / "figures")
    return Training(name=name, sentence=sentence(points), figure=figure)
