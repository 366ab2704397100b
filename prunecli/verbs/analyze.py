"""`analyze` on files: a model, a data set, or a model with a data set."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from prunecli.artefacts.sparse import stored_sparsity
from prunecli.data import DataSource, check_classes, load_split, open_source, unlike_classes
from prunecli.data.decode import preparation
from prunecli.errors import InputError
from prunecli.html import analysis_page, write_page
from prunecli.lifetime.claims import claiming
from prunecli.options import AnalyzeOptions, LoadOptions, PruneOptions
from prunecli.pictures import save_pictures
from prunecli.pictures.of_reports import analysis_pictures, picture_names
from prunecli.progress import Clock, Progress, Step, silent
from prunecli.report import AnalyzeReport, DatasetAnalysis, ModelAnalysis
from prunecli.verbs.images import features_of, images_for
from prunecli.verbs.opened import open_model
from prunecli.verbs.showing import Show, check_show

if TYPE_CHECKING:
    from pathlib import Path


@claiming
def analyze(
    *,
    model: Path | None = None,
    data: str | None = None,
    options: AnalyzeOptions | None = None,
    load: LoadOptions | None = None,
    plots: Path | None = None,
    page: Path | None = None,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
) -> AnalyzeReport:
    """Look at a model, at a data set, or at a model with a data set.

    `plots` is a folder for pictures of the data and of what the model does on them, `page` an HTML
    file for all that was found.
    """
    start = time.perf_counter()
    options = options or AnalyzeOptions()
    names = picture_names(options, model=model is not None, data=data is not None)
    inputs = [model, data, *options.learnability]
    check_show(Show(page, plots), names, inputs=inputs, overwrite=overwrite)
    from prunecli.learnability import compare_records, unlike_runs

    warnings: list[str] = []
    learned = compare_records(options.learnability) if options.learnability else None
    warnings.extend(unlike_runs(learned.runs) if learned else [])
    if data is not None:
        progress(Step("find images", 0))
    source = None if data is None else open_source(data)
    found_model, found_data, masks = None, None, None
    if model is not None:
        found_model = _analyze_model(
            model, source, options=options, load=load, warnings=warnings, progress=progress
        )
    if source is not None and source.has_masks:
        from prunecli.analysis.masks import analyze_masks

        masks = analyze_masks(source, progress=progress)
        warnings.extend(masks.warnings)
    elif source is not None:
        found_data = _analyze_data(source, model, options=options, load=load, progress=progress)
        warnings.extend(found_data.warnings)
        warnings.extend(source.problems)
    report = AnalyzeReport(
        model=found_model,
        dataset=found_data,
        seconds=round(time.perf_counter() - start, 3),
        warnings=tuple(dict.fromkeys(warnings)),
        learnability=learned,
        page=page,
        masks=masks,
    )
    if page is not None:
        write_page(page, analysis_page(report, source, command=command, progress=progress))
    if plots is not None:
        drawn = analysis_pictures(report, options)
        report = dataclasses.replace(report, pictures=save_pictures(plots, drawn))
    return report


def _analyze_model(
    path: Path,
    source: DataSource | None,
    *,
    options: AnalyzeOptions,
    load: LoadOptions | None,
    warnings: list[str],
    progress: Progress,
) -> ModelAnalysis:
    from prunecli.analysis.network import analyze_network

    opened = open_model(path, load)
    checkpoint = opened.checkpoint
    warnings.extend(opened.loaded.warnings)
    network = opened.network(Clock(progress))
    images, batches = None, None
    if source is not None:
        if source.has_masks:
            raise InputError(
                "a model is analysed on images with labels, and these have masks",
                code="NO_CLASSES",
                where=str(source.path),
                hint="analyze the model and the data one by one",
            )
        check_classes(network.outputs, source, names=checkpoint.classes)
        warnings.extend(unlike_classes(checkpoint.classes, source))
        images = load_split(
            source,
            "held_out",
            input=checkpoint.input,
            seed=options.seed,
            limit=options.limit,
            progress=progress,
        )
        choice = PruneOptions(signal=options.signal, seed=options.seed, limit=options.limit)
        where = str(source.path)
        batches = images_for(checkpoint, where, choice, progress, scored=True).scored_on
    found = analyze_network(
        network,
        options=options,
        architecture=opened.architecture,
        images=images,
        input=checkpoint.input,
        batches=batches,
        progress=progress,
    )
    return dataclasses.replace(
        found,
        sparsity=stored_sparsity(checkpoint),
        preparation=None if images is None else preparation(checkpoint.input),
    )


def _analyze_data(
    source: DataSource,
    model: Path | None,
    *,
    options: AnalyzeOptions,
    load: LoadOptions | None,
    progress: Progress,
) -> DatasetAnalysis:
    from prunecli.analysis.dataset import analyze_dataset
    from prunecli.complexity import NetworkFeatures, parse_embedding

    network = None
    chain = parse_embedding(options.complexity.embedding or "raw")
    if model is not None and chain[0][0] == "model":
        opened = open_model(model, load)
        spec = opened.checkpoint.input
        features = features_of(opened.model, spec)
        network = NetworkFeatures(spec, features, opened.loaded.sha256)
    return analyze_dataset(
        source,
        options=options.complexity,
        seed=options.seed,
        network=network,
        records=options.learnability,
        progress=progress,
    )
