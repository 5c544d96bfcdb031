"""The configuration's types and ranges: what the files in `conf/` and the overrides may say."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from digits.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Count = Annotated[int, Field(ge=1, description="a whole number from 1")]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, description="a number from 0 up to, not including, 1")]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, description="a number from 0")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, description="a number above 0")]
Folder = Annotated[
    str, Field(min_length=1, description="a folder"), AfterValidator(lambda s: str(Path(s).expanduser()))
]
Limit = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)] | None,
    Field(description="a number of batches, a share of them from 0.0 to 1.0, or null"),
]
Some = Annotated[
    Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | None,
    Field(description="a number of batches, a share of them above 0.0 and up to 1.0, or null for all"),
]


class DataConfig(_Section):
    """Arguments of :class:`~digits.data.module.DigitDataModule`."""

    name: Literal["mnist", "mnist5k"] = Field(description="mnist or mnist5k")
    data_dir: Folder
    batch_size: int = Field(ge=2, description="a whole number from 2, as batch normalisation needs more than one")
    val_size: int = Field(ge=0, lt=60_000, description="a whole number from 0 to 59,999")
    synthetic: Share
    test_each_epoch: bool = Field(description="true or false")
    offline_fallback: bool = Field(description="true or false")

    @model_validator(mode="after")
    def _splits(self) -> "DataConfig":
        images = 4_000 if self.name == "mnist5k" else 60_000
        if self.val_size + self.batch_size > images:
            raise ValueError(
                f"val_size={self.val_size} and data.batch_size={self.batch_size}: together more than the {images:,} "
                f"training images of {self.name}"
            )
        if self.test_each_epoch and self.val_size:
            raise ValueError("test_each_epoch=true: takes the place of a validation split; set data.val_size=0")
        return self


class ModelConfig(_Section):
    """Arguments of :class:`~digits.network.DeepDigits`."""

    conv_dropout: Share
    dense_dropout: Share
    l2: NotNegative
    temperature: Positive


class AugmentationConfig(_Section):
    """Arguments of :class:`~digits.data.augmentation.Augmentation`."""

    degrees: float = Field(ge=0, le=180, description="degrees from 0 to 180")
    scale: Share
    shear: Share
    translate: float = Field(ge=0, le=14, description="pixels from 0 to 14")
    stroke_width: Share


class RecipeConfig(_Section):
    """How the classifier is trained."""

    optimizer: Literal["adam", "adamw"] = Field(description="adam or adamw")
    learning_rate: Positive
    weight_decay: NotNegative
    schedule: Literal["constant", "one_cycle"] = Field(description="constant or one_cycle")
    warmup: Share
    epochs: Count
    min_steps: int = Field(ge=0, description="a whole number from 0")
    label_smoothing: Share
    ema_decay: Share
    augmentation: AugmentationConfig | None = Field(
        description="null, or degrees, scale, shear, translate and stroke_width"
    )


class TrainerConfig(_Section):
    """Arguments of Lightning's ``Trainer``; null leaves one to Lightning."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = Field(
        description="auto, cpu, gpu, cuda, mps or tpu"
    )
    devices: Literal["auto", 1] | Annotated[list[int], Field(min_length=1, max_length=1)] = Field(
        description="auto, 1, or the number of a GPU in brackets: one GPU or CPU, or all cores of a TPU"
    )
    strategy: Literal["auto", "ddp"] = Field(description="auto or ddp")
    # no "bf16-true", "16-true": the small steps of averages and of batch statistics would be rounded to nothing
    precision: Literal[
        "auto",
        16,
        32,
        64,
        "16",
        "32",
        "64",
        "16-mixed",
        "bf16-mixed",
        "32-true",
        "64-true",
        "bf16",
    ] = Field(description="auto, 32-true, bf16-mixed, 16-mixed or 64-true")
    fast_dev_run: Annotated[bool | Annotated[int, Field(ge=0)], Field(description="true, false or a number of batches")]
    max_epochs: Annotated[int, Field(ge=1)] | None = Field(
        description="a whole number from 1, or null for the recipe's"
    )
    min_epochs: Count | None
    max_steps: Literal[-1] | Count = Field(description="a whole number from 1, or -1 for no limit")
    min_steps: Count | None
    max_time: Annotated[str, Field(pattern=r"^\d+:\d\d:\d\d:\d\d$")] | None = Field(description="DD:HH:MM:SS or null")
    limit_train_batches: Some
    limit_val_batches: Limit
    limit_test_batches: Some
    check_val_every_n_epoch: Count | None
    num_sanity_val_steps: int = Field(ge=-1, description="a whole number from 0, or -1 for all")
    log_every_n_steps: Count
    logger: bool = Field(description="true or false")
    enable_checkpointing: bool = Field(description="true or false")
    enable_progress_bar: bool = Field(description="true or false")
    enable_model_summary: bool = Field(description="true or false")
    accumulate_grad_batches: Count
    gradient_clip_val: NotNegative | None
    gradient_clip_algorithm: Literal["norm", "value"] | None = Field(description="norm, value or null")
    deterministic: bool | Literal["warn"] | None = Field(description="true, false, warn or null")
    benchmark: bool | None = Field(description="true, false or null")
    inference_mode: bool = Field(description="true or false")
    profiler: Literal["simple", "advanced", "pytorch", "xla"] | None = Field(
        description="simple, advanced, pytorch, on a TPU xla, or null"
    )
    detect_anomaly: bool = Field(description="true or false")


class Config(_Section):
    """All of a run's settings."""

    name: str = Field(pattern=r"^[^/\s]*[^/\s.][^/\s]*$", description="a word; it names the folder under runs/")
    seed: int = Field(ge=0, le=2**32 - 1, description="a whole number from 0 to 4,294,967,295")
    ckpt_path: str | None = Field(description="the path of a checkpoint or of a run's folder, last, best, or null")
    resume: bool = Field(description="true or false")
    checkpoint_every: Positive | None = Field(description="a number of minutes above 0, or null")
    compile: bool | Literal["auto"] = Field(description="auto, true or false")
    data: DataConfig
    model: ModelConfig
    recipe: RecipeConfig
    trainer: TrainerConfig


def check(settings: dict[str, Any]) -> Config:
    """The settings as a :class:`Config`.

    Raises:
        ConfigError: the first setting that is unknown, of a wrong type or out of range; one line that names the key,
            the value and what is allowed.
    """
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(_explain(error.errors()[0])) from None


def _explain(problem: Any) -> str:
    section: Any = Config
    path: list[str] = []
    description = ""
    for step in problem["loc"]:
        fields = section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else {}
        if step not in fields:
            break
        path.append(str(step))
        description, annotation = fields[step].description or "", fields[step].annotation
        section = next((t for t in (annotation, *getattr(annotation, "__args__", ())) if isinstance(t, type)), None)
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        key = ".".join(map(str, problem["loc"]))
        known = list(section.model_fields)
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{key}={problem['input']!r}: no such setting; {hint}allowed here: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{key}: a value is needed: {description}"
    if problem["type"] == "value_error":
        return f"{key}.{problem['ctx']['error']}"
    return f"{key}={problem['input']!r}: allowed is {description or problem['msg'].lower()}"
