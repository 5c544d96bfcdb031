"""The configuration's types and ranges: what the files in `conf/` and the overrides may say."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from digits.errors import ConfigError
from digits.settings.wording import explain


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Folder = Annotated[str, Field(min_length=1), AfterValidator(lambda s: str(Path(s).expanduser())), "a folder"]
# The text in a type says what is allowed; without one, digits.settings.wording makes it of the type and its limits.
Limit = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)] | None,
    "a number of batches, a share of them from 0.0 to 1.0, or null for all",
]
Some = Annotated[
    Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | None,
    "a number of batches, a share of them above 0.0 and up to 1.0, or null for all",
]


class DataConfig(_Section):
    """Arguments of :class:`~digits.data.module.DigitDataModule`."""

    name: Literal["mnist", "mnist5k"] = Field(description="MNIST, or 5,000 of its digits, which need no network")
    data_dir: Folder = Field(
        description="where MNIST is, or will be downloaded to; the variable DIGITS_DATA_DIR sets the default"
    )
    batch_size: int = Field(
        ge=2, description="images in a step, over all devices together; batch normalisation needs more than one"
    )
    val_size: int = Field(ge=0, lt=60_000, description="training images held out for validation; 0: none")
    synthetic: Share = Field(
        description="synthetic digits in forms that are rare in MNIST, to train on too: so many for each of MNIST's"
    )
    test_each_epoch: bool = Field(
        description="score the test split after each epoch, in place of a validation split: needs data.val_size=0"
    )
    offline_fallback: bool = Field(
        description="without files and network, train on the 5,000 digits that come along; false: that is an error"
    )

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

    conv_dropout: Share = Field(description="share of the activations dropped after each pooling")
    dense_dropout: Share = Field(description="share of the activations dropped after each hidden dense layer")
    l2: NotNegative = Field(description="L2 regularization: weight of the kernels' squares in the loss; 0: none")
    temperature: Positive = Field(
        description="divides the logits before the softmax; fitted after the training if images are held out for it"
    )


class AugmentationConfig(_Section):
    """Arguments of :class:`~digits.data.augmentation.Augmentation`."""

    degrees: float = Field(ge=0, le=180, description="images are turned by up to so many degrees, either way")
    scale: Share = Field(description="made larger or smaller by up to this share, in width and in height")
    shear: Share = Field(description="slanted: shifted sideways by up to this share of the height")
    translate: float = Field(ge=0, le=14, description="moved by up to so many pixels of the 28, in x and in y")
    stroke_width: Share = Field(description="strokes made wider or narrower by up to so many pixels on each side")


class RecipeConfig(_Section):
    """How the classifier is trained."""

    optimizer: Literal["adam", "adamw"] = Field(description="Adam as Keras has it, or AdamW")
    learning_rate: Positive = Field(description="the learning rate; of one_cycle the peak")
    weight_decay: NotNegative = Field(description="decay of the kernels, with adamw")
    schedule: Literal["constant", "one_cycle"] = Field(description="how the learning rate goes from step to step")
    warmup: Share = Field(description="with one_cycle: share of the steps in which the rate rises")
    epochs: Count = Field(description="times through the training images; trainer.max_epochs, if set, goes before it")
    min_steps: int = Field(ge=0, description="small training sets get as many epochs more as make so many steps")
    label_smoothing: Share = Field(description="share of the target that is spread over all ten digits")
    ema_decay: Share = Field(description="decay of the weights' moving average, which is what is scored; 0: none")
    augmentation: AugmentationConfig | None = Field(description="what is done to each image at random; null: nothing")


class TrainerConfig(_Section):
    """Arguments of Lightning's ``Trainer``; null leaves one to Lightning. Help describes the common ones."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = Field(
        description="what it is computed on; auto: a TPU if there is one, else a GPU, else the CPU"
    )
    devices: Annotated[
        Literal["auto", 1] | Annotated[list[int], Field(min_length=1, max_length=1)],
        "auto, 1, or the number of a GPU in brackets",
    ] = Field(description="one GPU or CPU, or all cores of a TPU; [1]: the second GPU")
    # no "bf16-true", "16-true": the small steps of averages and of batch statistics would be rounded to nothing
    precision: Annotated[
        Literal["auto", 16, 32, 64, "16", "32", "64", "16-mixed", "bf16-mixed", "32-true", "64-true", "bf16"],
        "auto, 32-true, bf16-mixed, 16-mixed or 64-true",
    ] = Field(description="of the computation; auto: bf16-mixed where the device has it, else 32-true")
    max_epochs: Count | None = Field(description="times through the training images; null: as recipe.epochs says")
    max_steps: Literal[-1] | Count = Field(description="stop after so many steps; -1: when the epochs are over")
    max_time: Annotated[str, Field(pattern=r"^\d+:\d\d:\d\d:\d\d$"), "DD:HH:MM:SS"] | None = Field(
        description="stop after so many days, hours, minutes and seconds"
    )
    limit_train_batches: Some = Field(description="train on a part of each epoch only")
    fast_dev_run: bool | Annotated[int, Field(ge=0), "a number of batches"] = Field(
        description="try everything on one batch, or so many, and keep nothing"
    )
    accumulate_grad_batches: Count = Field(description="batches whose gradients are added up for one step")
    gradient_clip_val: NotNegative | None = Field(description="gradients are clipped to this norm; null: they are not")
    deterministic: bool | Literal["warn"] | None = Field(description="use none but deterministic algorithms")
    logger: bool = Field(description="write the figures for TensorBoard")
    enable_checkpointing: bool = Field(description="write checkpoints, from which a run that was stopped goes on")
    enable_progress_bar: bool = Field(description="show how far the training is")
    profiler: Literal["simple", "advanced", "pytorch", "xla"] | None = Field(
        description="report in the run's folder where the time goes; xla: on a TPU"
    )
    strategy: Literal["auto", "ddp"]
    min_epochs: Count | None
    min_steps: Count | None
    limit_val_batches: Limit
    limit_test_batches: Some
    check_val_every_n_epoch: Count | None
    num_sanity_val_steps: int = Field(ge=-1)
    log_every_n_steps: Count
    enable_model_summary: bool
    gradient_clip_algorithm: Literal["norm", "value"] | None
    benchmark: bool | None
    inference_mode: bool
    detect_anomaly: bool


class Config(_Section):
    """All of a run's settings. The descriptions are what `python train.py --help` says."""

    name: Annotated[str, Field(pattern=r"^[^/\s]*[^/\s.][^/\s]*$"), "a word"] = Field(
        description="the run's folder is runs/NAME/TIME; hydra.run.dir=FOLDER names another"
    )
    seed: int = Field(
        ge=0,
        le=2**32 - 1,
        description="decides what is random: weights, dropout, augmentation, order of the images, split",
    )
    resume: bool = Field(description="go on with what was stopped in the run's folder; false: begin anew there")
    ckpt_path: Annotated[str | None, "a path, last, best or null"] = Field(
        description="begin from a checkpoint: its path, a run's folder, or last or best of the run's own folder"
    )
    checkpoint_every: Positive | None = Field(
        description="minutes between checkpoints within an epoch; null: only after epochs"
    )
    compile: Literal["auto"] | bool = Field(
        description="compile on a CPU what is around the convolutions; auto: in runs long enough for it to pay"
    )
    data: DataConfig = Field(description="the images; data=mnist5k takes the small set")
    model: ModelConfig = Field(description="the network")
    recipe: RecipeConfig = Field(description="how it is trained; recipe=keras takes the original's")
    trainer: TrainerConfig = Field(description="arguments of Lightning's Trainer; null leaves one to Lightning")


def check(settings: dict[str, Any]) -> Config:
    """The settings as a :class:`Config`.

    Raises:
        ConfigError: the first setting that is unknown, of a wrong type or out of range; one line that names the key,
            the value and what is allowed.
    """
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(explain(Config, error.errors()[0])) from None
