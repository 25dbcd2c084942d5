"""Settings of a run: one flat frozen dataclass, and presets that list only their differences."""

from __future__ import annotations

import difflib
import inspect
import json
import logging
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from html import escape
from itertools import takewhile
from pathlib import Path
from typing import Any

from mvf.files import expand_user

logger = logging.getLogger(__name__)

ALIASES = {  # short names of backbones, and timm's
    "dino_vitb8": "vit_base_patch8_224.dino",
    "dino_vits8": "vit_small_patch8_224.dino",
    "dino_vitb16": "vit_base_patch16_224.dino",
    "dino_vits16": "vit_small_patch16_224.dino",
    "dinov2_vits14": "vit_small_patch14_dinov2.lvd142m",
    "dinov2_vitb14": "vit_base_patch14_dinov2.lvd142m",
    "dinov3_vits16": "vit_small_patch16_dinov3.lvd1689m",
    "resnet50": "resnet50.a1_in1k",
}
VIT_BLOCKS, RESNET_STAGES = 12, 4  # layers of these

CHOICES = {
    "pooling": ("lstp", "fixed_width", "max", "mean", "cls"),
    "readout": ("cls", "mean"),
    "positions": ("sine", "none"),
    "sampling": ("published", "content"),
    "motion_weighting": ("spread", "augmentation"),
    "block_rule": ("length", "sampled", "window"),
    "features": ("online", "banked"),
    "engine": ("auto", "torch", "openvino"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "bank_dtype": ("bf16", "int8"),
    "probe": ("logistic", "sgd"),
    "judge": ("action", "together"),
    "on_change": ("refuse", "continue", "restart"),
}


@dataclass(frozen=True)
class Config:
    """Every setting of a run, in the paper's terms; the defaults are the paper's Penn Action row.

    An empty string or a zero often stands for a default, which the comment beside the field names.
    """

    # data: the keys that belong to a dataset rather than to a method
    dataset: str = "synthetic"
    data_root: str = ""  # empty: $MVF_DATA, else ~/mvf_data; kept absolute
    data_seed: int = 0  # seed of the synthetic data
    data_options: dict[str, Any] = field(default_factory=dict)  # keywords of the dataset's find_videos
    fps: float = 0.0  # resample videos to this rate; 0: as recorded
    stride: int = 2  # frame stride of Kendall's tau and retrieval
    chunk: int = 1000  # frames embedded at once
    probe: str = "logistic"  # classification probe: logistic regression, or FineGym's linear layer by SGD
    judge: str = "action"  # score each action alone; "together": one task, its labels being classes without an order
    action: str = ""  # only the videos of this action
    localization: bool = True  # score attention maps too, which takes half of the time of a small run

    # backbone, frozen except for the last `trainable_blocks`
    backbone: str = "dino_vitb8"
    backbone_weights: str = ""  # empty: hub, else package index; a file's path; "random"
    image_size: int = 224
    layers: tuple[int, ...] = (4, 8, 12)  # 1-based blocks, concatenated on channels
    trainable_blocks: int = 0  # last blocks (ResNets: stages) that are trained too

    # pooling: Learnable Spatial Token Pooling and its baselines
    pooling: str = "lstp"
    entities: int = 3
    entity_width: int = 384
    entity_id: bool = True  # one-hot appended to every entity
    entity_competition: bool = False  # softmax over entities, then over patches

    # fusion: Multi-entity Temporal Fusion
    token_width: int = 512
    fusion_width: int = 256
    fusion_blocks: int = 3
    fusion_heads: int = 8
    fusion_feedforward: int = 1024
    dropout: float = 0.1
    positions: str = "sine"
    token_merge: float = 0.0  # share of the tokens merged along time in the fusion; 0: off
    readout: str = "cls"
    embedding_size: int = 128
    projection_width: int = 128

    # objective
    objective: str = "scl"
    objective_options: dict[str, Any] = field(default_factory=dict)  # keywords of the loss
    overlap_penalty: float = 0.0  # weight of the overlap of the entity maps in the loss

    # motion skip: movement in closed form, added to the embeddings of whole clips (docs/design.md, section 6)
    motion_skip: float = 0.0  # its weight, where the trained embedding has 1; 0: off
    motion_offsets: tuple[int, ...] = (2, 5, 9)  # differences over plus and minus so many frames
    motion_context: int = 12  # frames to each side whose movement a frame sees
    motion_weighting: str = "spread"  # "augmentation": its directions are divided by what augmentation changes in them
    velocity: bool = False  # every token is followed by the z-scored differences of its frame, over `motion_offsets`

    # sampling and augmentation
    num_frames: int = 80
    sampling: str = "published"  # "content": two overlapping windows of 40 to 100 % of the video
    block_rule: str = "length"  # block of a published view: region * length | sampled | window
    region: float = 1.5
    overlap: float = 0.2
    crop_area: tuple[float, ...] = (0.8, 1.0)
    flip: float = 0.5
    jitter: tuple[float, ...] = (0.8, 0.8, 0.8, 0.2)  # brightness, contrast, saturation, hue
    jitter_probability: float = 0.8
    blur_probability: float = 0.4

    # optimisation
    features: str = "online"  # "banked": patch features of augmented views are computed once and stored
    bank_views: int = 4
    bank_dtype: str = "bf16"  # "int8": half of the bytes, one scale per frame and channel
    bank_channels: int = 0  # number of principal directions of the patches that are kept (PCA); 0: all channels
    epochs: int = 500
    batch_size: int = 4
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    clip_norm: float = 10.0
    init_from: str = ""  # run folder, checkpoint or released head to start from; a preset: its run of this seed
    per_action: bool = False  # one model per action
    engine: str = "auto"  # what computes frozen features on a CPU: torch or openvino; auto: the faster here
    precision: str = "auto"  # of the backbone: fp32, bf16, fp16; auto: the fastest here
    device: str = "auto"
    workers: int = 0  # processes that load batches; 0: a thread loads them
    on_change: str = "refuse"  # what a run does whose clips have changed: refuse, continue, or restart
    compile: bool = False  # torch.compile of the frozen backbone: pays off in long runs
    seed: int = 1
    preset: str = "penn"  # the preset this configuration started from

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            _check_choice(name, getattr(self, name), allowed)
        if self.data_root:  # a run may be opened from another working directory
            object.__setattr__(self, "data_root", str(expand_user(self.data_root).absolute()))
        self._check_sizes()
        self._check_shares()
        self._check_entities()
        self._check_backbone()
        self._check_objective()
        self._check_finite()
        self._check_motion()

    def _check_sizes(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_frames < 2:
            raise ValueError(f"num_frames must be at least 2, got {self.num_frames}")
        if self.epochs < (0 if self.init_from else 1):
            raise ValueError(
                f"epochs must be at least 1, or 0 with init_from to evaluate without training; got {self.epochs}"
            )
        if self.bank_channels < 0:
            raise ValueError(f"bank_channels must be 0 (off) or more, got {self.bank_channels}")

    def _check_shares(self) -> None:
        for name in ("dropout", "token_merge"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.overlap_penalty < float("inf"):
            raise ValueError(f"overlap_penalty must be 0 (off) or more, and finite, got {self.overlap_penalty}")

    def _check_entities(self) -> None:
        for name in ("entity_competition", "overlap_penalty"):
            if getattr(self, name) and self.pooling != "lstp":
                raise ValueError(
                    f'{name} needs entity maps, which pooling "{self.pooling}" does not have: use pooling="lstp"'
                )
        if self.overlap_penalty and self.entities < 2:
            raise ValueError(f"overlap_penalty compares entities: it needs at least 2 of them, got {self.entities}")

    def _check_backbone(self) -> None:
        if not self.layers or any(layer < 1 for layer in self.layers):
            raise ValueError(f"layers must be numbers of at least 1, like 4,8,12; got {self.layers}")
        if self.trainable_blocks < 0:
            raise ValueError(f"trainable_blocks must be 0 (frozen) or more, got {self.trainable_blocks}")
        if self.trainable_blocks and self.features == "banked":
            raise ValueError('features="banked" stores frozen features: with trainable_blocks use features="online"')
        if self.engine == "openvino" and (self.trainable_blocks or self.compile):
            raise ValueError(
                'engine="openvino" computes frozen networks: with trainable_blocks or compile use engine="torch"'
            )

        check_backbone_name(self.backbone)
        blocks = RESNET_STAGES if self.backbone == "resnet50" else VIT_BLOCKS
        if self.backbone in ALIASES and any(layer > blocks for layer in self.layers):
            raise ValueError(f"{self.backbone} has layers 1 to {blocks}, got layers {self.layers}")
        patch = int(found[1]) if (found := re.search(r"patch(\d+)", ALIASES.get(self.backbone, ""))) else 1
        check_patches(self.backbone, patch, self.image_size)

    def _check_objective(self) -> None:
        known = ("scl", *sorted(path.stem for path in (FOLDER / "objectives").glob("*.toml")))
        for member in self.objective.split("+"):
            name = member.rpartition("*")[2].strip()
            if name not in known:
                raise ValueError(f'unknown objective "{name}"; {nearest(name, known)}')

    def _check_finite(self) -> None:
        for name, value in vars(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
                raise ValueError(f"{name} must be a finite number, got {value}")

    def _check_motion(self) -> None:
        if self.motion_skip < 0:
            raise ValueError(f"motion_skip must be 0 (off) or more, got {self.motion_skip}")
        if not self.motion_offsets or any(offset < 1 for offset in self.motion_offsets):
            raise ValueError(f"motion_offsets must be frames of at least 1, like 2,5,9; got {self.motion_offsets}")
        if self.motion_context < 0 or self.motion_context % 2:
            raise ValueError(f"motion_context must be an even number of frames, or 0; got {self.motion_context}")
        if self.motion_skip and self.trainable_blocks:
            raise ValueError("motion_skip is fitted to frozen features: with trainable_blocks use motion_skip=0")
        if self.motion_skip and self.motion_weighting == "augmentation" and self.features != "banked":
            raise ValueError(
                f'motion_weighting="augmentation" reads the views of a bank, and features="{self.features}" has none: '
                'use features="banked" or motion_weighting="spread"'
            )
        if self.velocity and self.features != "banked":
            raise ValueError('velocity reads stored frozen features: use features="banked" and trainable_blocks=0')

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values: tuples become lists."""
        return json.loads(json.dumps(asdict(self)))

    @property
    def own(self) -> dict[str, Any]:
        """The settings that differ from those of the preset."""
        values = _DEFAULTS | (preset_values(self.preset) if self.preset in presets() else {})
        plain = {name: cast(name, value, _DEFAULTS[name]) for name, value in values.items()}
        return {name: value for name, value in vars(self).items() if name != "preset" and value != plain[name]}

    def __repr__(self) -> str:
        """The call that makes it, as `load_config('demo', epochs=2)`."""
        own = (f", {name}={value!r}" for name, value in self.own.items())
        return f"load_config({self.preset!r}{''.join(own)})"

    def _repr_html_(self) -> str:
        meanings = field_meanings()
        rows = [(name, value, meanings[name]) for name, value in self.own.items()]
        return html_table(f"preset {self.preset}" + (", with" if rows else ""), rows)


def html_table(caption: str, rows: Sequence[Sequence[object]]) -> str:
    """A table for notebooks.

    Example:
        >>> html_table("a < b", [("seed", 1)])
        '<b>a &lt; b</b><table><tr><td align="left">seed</td><td align="left">1</td></tr></table>'
    """
    lines = ("".join(f'<td align="left">{escape(str(value))}</td>' for value in row) for row in rows)
    table = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<b>{escape(caption)}</b>" + (f"<table>{table}</table>" if table else "")


_POSITIVE = (
    "entities entity_width image_size token_width fusion_width fusion_blocks fusion_heads fusion_feedforward "
    "embedding_size projection_width bank_views batch_size stride chunk"
).split()
LISTED = 60  # names in a message
DATA_FIELDS = tuple("dataset data_root data_seed data_options fps stride chunk probe judge action".split())
# what may differ when a trained model is opened: the data, what is scored, and how the machine computes
OPEN_FIELDS = (*DATA_FIELDS, "localization", "features", "engine", "precision", "device", "workers", "compile")
BASE_FIELDS = (*DATA_FIELDS, "num_frames", "batch_size")
RECIPE = {"sampling", "motion_skip", "motion_weighting", "velocity"}  # what the default sets otherwise than the paper
_DEFAULTS = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(Config)}


def check_patches(name: str, patch: int, image_size: int) -> None:
    """Raises ValueError if patches of so many pixels do not divide the image; the message names the nearest sizes."""
    if image_size < 1 or image_size % patch:
        lower = image_size // patch * patch
        fitting = f"{lower} or {lower + patch}" if lower > 0 else f"{patch}"
        raise ValueError(f"image_size {image_size} does not fit the {patch}-pixel patches of {name}; use {fitting}")


def check_backbone_name(name: str) -> None:
    """Raises ValueError for a backbone that is neither in `ALIASES` nor known to timm; the nearest is named."""
    if name in ALIASES:
        return
    import timm  # takes seconds

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and not timm.models.is_model_pretrained(name)):
        known = [*ALIASES, *timm.list_models(), *timm.list_models(pretrained=True)]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(ALIASES)}, and all names of timm"
        raise ValueError(f'unknown backbone "{name}"; {hint}')


def presets() -> tuple[str, ...]:
    """Names of all presets: those with a file, and those made for each objective."""
    return tuple(stored_presets())


def field_meanings() -> dict[str, str]:
    """The comment beside every field of `Config`, by name; empty where its name says it.

    Example:
        >>> field_meanings()["stride"]
        "frame stride of Kendall's tau and retrieval"
    """
    lines = inspect.getsource(Config).splitlines()
    found = (re.match(r"    (\w+): [^#]*(?:#\s*(.*))?$", line) for line in lines)
    meanings = {match[1]: match[2] or "" for match in found if match}
    return {field.name: meanings.get(field.name, "") for field in fields(Config)}


def load_config(preset: str = "synthetic", base: str = "", /, **overrides: Any) -> Config:
    """Returns the configuration of `preset` with some fields replaced.

    An override of `dataset` also sets that dataset's data keys (`DATA_FIELDS` of the preset of that name). Later ones
    win: the preset, the data keys of the dataset, the overrides.

    Args:
        preset: Name of a preset.
        base: Preset whose data and size (`BASE_FIELDS`) are used with the differences of `preset`, for an ablation on
            another data set.
        **overrides: Values by field name. Text is cast to the field's type, as papermill passes text.

    Raises:
        ValueError: for an unknown preset, field or choice (the nearest valid one is named), or a bad value.

    Example:
        >>> load_config("penn", entities=1, layers="10,11,12").layers
        (10, 11, 12)
    """
    if "preset" in overrides:
        raise ValueError(
            f'preset cannot be set beside another one: name "{overrides["preset"]}" in place of "{preset}"'
        )
    values = {**_read_preset(preset, base), "preset": preset}
    dataset = overrides.get("dataset")
    if dataset and dataset != values.get("dataset", Config.dataset) and dataset in presets():
        keys = deepcopy(_DEFAULTS) | _read_preset(dataset)
        values |= {name: keys[name] for name in DATA_FIELDS}
    return make_config({**values, **overrides})


def make_config(values: Mapping[str, Any]) -> Config:
    """Makes a configuration from plain values; unknown names are refused."""
    if not isinstance(values, Mapping):
        raise ValueError(f"settings must be an object of values by name, got {type(values).__name__}")
    check_settings(values)
    return Config(**{name: cast(name, value, _DEFAULTS[name]) for name, value in values.items()})


def check_settings(names: Iterable[str]) -> None:
    """Raises ValueError for a name that is no setting; the nearest is named."""
    for name in names:
        _check_choice("setting", name, _DEFAULTS)


def nearest(name: object, allowed: Iterable[object]) -> str:
    """`did you mean "..."?` when one of `allowed` is close, else the list of them."""
    names = list(map(str, allowed))
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f'did you mean "{close[0]}"?' if close else f"known: {', '.join(names[:LISTED])}{more}"


def _check_choice(kind: str, value: Any, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise ValueError(f'unknown {kind} "{value}"; {nearest(value, allowed)}')


def _read_preset(preset: str, base: str = "") -> dict[str, Any]:
    for name in filter(None, (preset, base)):
        if name not in presets() and Path(name).is_dir():
            raise ValueError(
                f'{name} is a folder, not a preset; for its clips: the preset "folder" with data_root {name}'
            )
        _check_choice("preset", name, presets())
    return preset_values(preset, base, BASE_FIELDS)


# ----------------------------------------------------------------------------------------------------------------------
# Casting: settings arrive as text from papermill and from a shell.


def cast(name: str, value: Any, wanted: Any) -> Any:
    """Casts the value of setting or parameter `name` to the type of `wanted`, an example such as its default.

    Raises:
        ValueError: if it does not fit; the message names the setting.

    Example:
        >>> cast("layers", "4,8", (12,)), cast("flip", "1", 0.5)
        ((4, 8), 1.0)
    """
    try:
        if isinstance(wanted, tuple):
            return _cast_tuple(value, float if any(isinstance(item, float) for item in wanted) else int)
        if isinstance(wanted, dict):
            return _cast_dict(value)
        if isinstance(wanted, bool):
            return _cast_bool(value)
        if isinstance(wanted, int):
            return _whole(value)
        if isinstance(wanted, str) and isinstance(value, list | tuple):
            return ",".join(map(str, value))
        return type(wanted)(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name} must be like {wanted!r}, got {value!r}: {error}") from None


def _cast_tuple(value: Any, item: type) -> tuple:
    if isinstance(value, str):
        value = [part for part in value.strip("[]() ").split(",") if part.strip()]
    elif not isinstance(value, Iterable):
        value = [value]
    return tuple(_whole(part) if item is int else float(part) for part in value)


def _whole(value: Any) -> int:
    number = value if isinstance(value, int) else float(value)
    if isinstance(value, bool) or number != int(number):
        raise ValueError("a whole number is needed")
    return int(number)


def _cast_bool(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in ("true", "false", "1", "0"):
        raise ValueError("true or false is needed")
    return text in ("true", "1")


def _cast_dict(value: Any) -> dict:
    value = json.loads(value or "{}") if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        raise ValueError('a JSON object is needed, like {"name": 1}')
    return dict(value)


# ----------------------------------------------------------------------------------------------------------------------
# Presets: one file each, and one file per objective from which a family of presets is made.
#
# A file in `presets/` lists the settings in which it differs from the preset that it `extends`. A file in
# `presets/objectives/` is named after an objective; its `own` holds the settings that the objective needs at the base's
# own size, and each `[[published]]` the data sets (`bases`) that it was published on, with the settings used there.
# Each of these bases gets two presets: `<base>_<objective>` trains the base's own model with the objective, and
# `<base>_<objective>_published` trains the model of CARL (`<base>_carl`) with the published settings.

FOLDER = Path(__file__).parent / "presets"
STUDY = ("study", "study_late", "study_pullups", "study_pullups_late")  # bases of every objective


@dataclass(frozen=True)
class Preset:
    """One preset.

    Attributes:
        extends: The preset that it starts from; empty if it starts from the defaults.
        values: The settings that it changes, by name.
        purpose: The comment at the beginning of its file.
        objective: The file in `objectives/` that it was made from; empty for a preset with a file of its own.
    """

    extends: str
    values: dict[str, Any] = field(default_factory=dict)
    purpose: str = ""
    objective: str = ""


@cache
def stored_presets() -> dict[str, Preset]:
    """All presets by name, in order.

    Example:
        >>> stored_presets()["penn_tcc_published"].extends, stored_presets()["penn_tcc"].values
        ('penn_carl', {'objective': 'tcc', 'objective_options': {}})
    """
    files = [(path, [(path.stem, _single(path))]) for path in FOLDER.glob("*.toml")]
    files += [(path, list(_family(path))) for path in (FOLDER / "objectives").glob("*.toml")]
    known = {name for _, made in files for name, _ in made}
    for path, made in files:
        for name, preset in made:
            if preset.extends and (preset.extends not in known or preset.extends == name):
                raise ValueError(f'{path}: {name} extends "{preset.extends}", which is not another preset')
    return dict(sorted(pair for _, made in files for pair in made))


def preset_values(preset: str, base: str = "", kept: tuple[str, ...] = ()) -> dict[str, Any]:
    """Values of a preset on top of those of the preset that it extends.

    Args:
        preset: Name of a preset.
        base: Replaces the last preset of the chain, which sets the data and the size. Its `RECIPE` is taken
            where that preset has one too, so that the paper's rows keep the paper's sampling.
        kept: Settings of `base` that the presets on top of it do not change.
    """
    stored = stored_presets()[preset]
    if stored.extends:
        own = {name: value for name, value in stored.values.items() if not (base and name in kept)}
        return preset_values(stored.extends, base, kept) | deepcopy(own)
    if base:
        left_out = RECIPE - stored.values.keys()
        return {name: value for name, value in preset_values(base).items() if name not in left_out}
    return deepcopy(stored.values)


def own_settings(preset: str) -> dict[str, Any]:
    """Settings of a preset and of those it extends, without the last one of the chain."""
    stored = stored_presets()[preset]
    return own_settings(stored.extends) | deepcopy(stored.values) if stored.extends else {}


def _single(path: Path) -> Preset:
    text, values = _read(path)
    extends = values.pop("extends", "")
    if not isinstance(extends, str):
        raise ValueError(f"{path}: extends must be the name of a preset, got {extends!r}")
    return Preset(extends, values, _comment(text))


def _family(path: Path) -> Iterator[tuple[str, Preset]]:
    """The presets of one objective; options of the base's own objective are not passed on to another one."""
    (text, stored), name = _read(path), path.stem
    try:
        published = {base: dict(block) for block in stored["published"] for base in _texts(block.pop("bases"))}
        own = {"objective": name, "objective_options": {}} | dict(stored.get("own", {}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: wanted [[published]] blocks with bases, and own settings ({error!r})") from None
    for base in (*published, *STUDY):
        yield f"{base}_{name}", Preset(base, own, _comment(text), name)
    for base, block in published.items():
        values = {"objective": name, "objective_options": {}} | block
        yield f"{base}_{name}_published", Preset(f"{base}_carl", values, _comment(text), name)


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None


def _texts(values: Any) -> list[str]:
    if not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
        raise ValueError(f"bases must be names, got {values!r}")
    return values


def _comment(text: str) -> str:
    """The comment lines at the beginning of a file, joined to one."""
    return " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), text.splitlines()))


# ----------------------------------------------------------------------------------------------------------------------
# `config.json`: the configuration of a run folder and the format of its files.

FORMAT = 1  # format of a run folder's files; raised when an older mvf would misread them
REMOVED = {"bank_renew": 0}  # settings that no longer exist, and the value at which they had no effect


def config_text(config: Config) -> str:
    """The text of `config.json`."""
    return json.dumps({"format": FORMAT, **config.as_dict()}, indent=1)


def stored_config(path: Path) -> Config:
    """Reads the configuration in a `config.json`; a file that names no format has format 1.

    Raises:
        ValueError: if the file is damaged, of a newer version, or has unknown settings; the message names the file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"wanted an object, got {type(values).__name__}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file of settings ({error}): restore it from a copy") from None
    version = check_format(values, path)
    for name, off in REMOVED.items():
        if (value := values.pop(name, off)) != off:
            logger.warning("%s sets %s to %r: that setting no longer exists and is ignored", path, name, value)
    try:
        return make_config({name: value for name, value in values.items() if name != "format"})
    except ValueError as error:
        raise ValueError(
            f"{path} (format {version}, this mvf writes {FORMAT}) was edited or written by another mvf: {error}. "
            "Open the folder with the mvf that wrote it, update this one, or choose another run_dir"
        ) from error


def check_format(values: Mapping[str, Any], path: Path) -> int:
    """Returns the format that a stored file names, or 1 if it names none.

    Raises:
        ValueError: if it is newer than this program; the message names the file and both versions.
    """
    version = values.get("format", 1)
    if not isinstance(version, int) or version > FORMAT:
        raise ValueError(
            f"{path} was written by a newer mvf: its format is {version!r}, this mvf reads up to {FORMAT}. "
            "Update mvf, or choose another run_dir"
        )
    return version
