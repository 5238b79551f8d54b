"""Flags that several commands share, and the one way from flags to a run model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin

import typer
from pydantic import BaseModel, ValidationError

from bfr_models.errors import UsageError, did_you_mean
from bfr_models.methods.effort import EFFORTS
from flows.cli.faults import told
from tasks.config.fields import OPTION_FLAGS

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Print tracebacks.")]
Source = Annotated[str, typer.Argument(metavar="SRC", help="Dataset: a folder, glob or file; any fsspec URL.")]
SourceOrFiles = Annotated[
    str,
    typer.Argument(
        metavar="SRC",
        help="Dataset; or images: a folder, .zip, .tar, glob or file, packed into DST first. Any fsspec URL.",
    ),
]
Destination = Annotated[str, typer.Argument(metavar="DST", help="Where to write; any fsspec URL.")]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what another command has left at DST.")]

Method = Annotated[str | None, typer.Option(help="Restoration method; `bfr methods` lists them.")]
PresetName = Annotated[str | None, typer.Option(help="Named size and weights of the method; its first by default.")]
Config = Annotated[Path | None, typer.Option(help="YAML file of settings; flags override it.")]
ImageColumn = Annotated[str, typer.Option(help="Image column.")]
Recogniser = Annotated[
    str | None, typer.Option(help="Network that compares identities: auto (default), arcface, adaface, dlib or none.")
]
Lpips = Annotated[str | None, typer.Option(help="LPIPS backbone: auto (default), vgg, alex, squeeze or none.")]
Metrics = Annotated[str | None, typer.Option(metavar="NAME,...", help="More metrics: ms_ssim, niqe, lmd.")]
ResizeBack = Annotated[
    bool | None,
    typer.Option(
        "--resize-back",
        help="Write aligned faces as DifFace's authors do: the network's, unjudged, at the size of the input.",
    ),
]
Protocol = Annotated[
    str | None, typer.Option(help="Evaluation protocol of the figures: default, vqfr, difface or ntire2025.")
]
FidReference = Annotated[
    str | None,
    typer.Option(help="Compare with these faces, not with the ground truth: a dataset, a run or .npz statistics."),
]
Actors = Annotated[
    int | None, typer.Option(help="Exactly this many workers; by default one per GPU, or per node without GPUs.")
]
ShardRows = Annotated[int | None, typer.Option(help="Rows per shard, rounded up to whole row groups; 32 by default.")]
AllowOpenCluster = Annotated[
    bool | None,
    typer.Option("--allow-open-cluster", help="Do not warn of a Ray cluster that asks its callers for no token."),
]
Engine = Annotated[str | None, typer.Option(help="ray (default), or local: threads of this process.")]

AcceptCodeChange = Annotated[
    bool | None,
    typer.Option("--accept-code-change", help="Go on with a run that other code began; by default it is refused."),
]

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any setting of `bfr restore`: gt_column=gt, options.steps=4."),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(help="Drop in mean identity up to which a generation becomes current; 0.01 by default."),
]
MaxRise = Annotated[
    float | None, typer.Option(help="Rise in FID up to which it becomes current; 0.1 (10 %) by default.")
]
Keep = Annotated[int | None, typer.Option(min=1, help="Finished generations to keep; 2 by default.")]
Credentials = Annotated[str | None, typer.Option(metavar="BLOCK", help="Prefect block with the object store's keys.")]
GpuPool = Annotated[str | None, typer.Option(help="Prefect concurrency limit to hold while faces are restored.")]


Model = TypeVar("Model", bound=BaseModel)


def asked_for(
    context: typer.Context,
    model: type[Model],
    config: Path | None = None,
    change: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Model:
    """The run that a command's flags ask for, once `change` has changed its settings. UsageError, which names the
    flags, for what it cannot be."""
    settings = change(settings_from(context, model, config))
    try:
        return model(**settings)
    except ValidationError as error:
        raise UsageError(told(error, model, _flags(context))) from None


def _flags(context: typer.Context) -> dict[str, str]:
    """The command's flags by field; its arguments, by their names in capitals."""
    flags = {}
    for parameter in context.command.params:
        is_flag = parameter.opts[0].startswith("--")
        flags[str(parameter.name).removesuffix("_")] = parameter.opts[0] if is_flag else str(parameter.metavar)
    return flags


def settings_from(context: typer.Context, model: type[BaseModel], config: Path | None = None) -> dict[str, Any]:
    """The model's fields among the flags that were given, over those of a YAML file.

    A flag is named as its field, with a trailing underscore where Python's own name would be hidden (`input_`).
    `--set` stands between the two: it overrides the file, and a flag overrides it.
    """
    from_file = {} if config is None else _read_settings(config)
    chosen, options = _assignments(context.params.get("settings") or ())
    for parameter, value in context.params.items():
        name = parameter.removesuffix("_")
        if value is None:
            continue
        if name == "quality":
            chosen |= _qualities(value)
        elif name in OPTION_FLAGS and "options" in model.model_fields:
            options[name] = value
        elif name in model.model_fields and (given := _as_field(model, name, value)) is not None:
            chosen[name] = given
    settings = {**from_file, **chosen}
    if "options" in model.model_fields:
        settings["options"] = {**_options(from_file, str(config)), **_options(chosen, "--set"), **options}
    return settings


def _options(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The method's options among some settings. UsageError unless these are names and values."""
    found = settings.get("options", {})
    if not isinstance(found, dict):
        raise UsageError(f"expected names and values for options in {where}, found {found!r}; for example steps: 4")
    return found


def _qualities(given: Iterable[str]) -> dict[str, str]:
    """`--quality` takes a word, which is the effort, and a number, which is the format's quality."""
    chosen: dict[str, str] = {}
    for word in given:
        if word not in EFFORTS and not word.isdigit():
            raise UsageError(
                f"expected --quality {', '.join(EFFORTS)}, or 1 to 100 for webp and jpeg, found {word!r}"
                f"{did_you_mean(word, EFFORTS)}"
            )
        name = "effort" if word in EFFORTS else "quality"
        if name in chosen:
            raise UsageError(
                f"expected --quality with one word and one number at most, found {chosen[name]} and {word}"
            )
        chosen[name] = word
    return chosen


def _as_field(model: type[BaseModel], name: str, value: Any) -> Any:
    """A list that is written with commas becomes one; None if nothing is in it."""
    if isinstance(value, str) and get_origin(model.model_fields[name].annotation) is tuple:
        return value.split(",") if value else None
    return value


def _read_settings(config: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(config.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"expected a YAML file of settings at {config}, found: {error}") from None
    if not isinstance(found, dict):
        raise UsageError(f"expected a YAML file of settings at {config} (name: value), found other YAML")
    return found


def _assignments(pairs: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings, and options of the method, from NAME=VALUE and options.NAME=VALUE; values are YAML."""
    import yaml

    chosen: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"expected --set NAME=VALUE, found {pair!r}")
        where = options if name.startswith("options.") else chosen
        try:
            where[name.removeprefix("options.")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            found = f"{value!r} ({getattr(error, 'problem', None) or error})"
            raise UsageError(f"expected a value in YAML for --set {name}, found {found}; put it in quotes") from None
    return chosen, options
