"""The configuration's types and ranges: what the files in `conf/` and the overrides may say."""

import functools
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, create_model, model_validator

from digits.errors import ConfigError
from digits.settings.targets import check_object, load_class, section_for, target_of
from digits.settings.trainer import TrainerConfig
from digits.settings.types import Count, Folder, NotNegative, Positive, Section, Share
from digits.settings.wording import explain, one_line

TRAINING_IMAGES = {"mnist": 60_000, "mnist5k": 4_000, "fashion_mnist": 60_000, "kmnist": 60_000}  # known unread


class DataConfig(Section, extra="allow"):
    """What all data modules have; the arguments of the one that is named join it once it is known."""

    name: str = Field(description="that of its file, of the group data")
    batch_size: int = Field(
        ge=2, description="images in a step, over all devices together; batch normalisation needs more than one"
    )
    val_size: Annotated[
        Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)],
        "a number of images, or a share of them from 0.0 to under 1.0",
    ] = Field(description="training images held out for validation; 0: none")
    synthetic: Share = Field(
        description="synthetic digits in forms and shapes rare in MNIST, to train on too: so many for each of MNIST's"
    )
    outliers: Share = Field(
        0.0,
        description="letters, signs, scribbles and the like, to learn doubt from: so many for each image to train on",
    )
    pictures: Folder | None = Field(
        None,
        description="a folder of your own pictures, in sub-folders 0 to 9, to train on too, in each batch; null: none",
    )
    pictures_share: Share = Field(0.25, description="share of each batch that they have, none of them twice")
    pictures_held_out: Share = Field(0.2, description="share of them, of each digit, that is not trained on; 0: none")
    test_each_epoch: bool = Field(
        description="score the test split after each epoch, in place of a validation split: needs data.val_size=0"
    )

    @model_validator(mode="after")
    def _splits(self) -> "DataConfig":
        images = TRAINING_IMAGES.get(self.name)
        held_out = self.val_size if isinstance(self.val_size, int) else round(self.val_size * (images or 0))
        if images is not None and held_out + self.batch_size > images:
            raise ValueError(
                f"val_size={self.val_size} and data.batch_size={self.batch_size}: together more than the {images:,} "
                f"training images of {self.name}"
            )
        if self.test_each_epoch and self.val_size:
            raise ValueError("test_each_epoch=true: takes the place of a validation split; set data.val_size=0")
        return self


class MNISTConfig(DataConfig, extra="forbid"):
    """Of :class:`~digits.data.module.MNISTDataModule`."""

    data_dir: Folder = Field(
        description="where MNIST is, or will be downloaded to; the variable DIGITS_DATA_DIR sets the default"
    )
    offline_fallback: bool = Field(
        description="without files and network, train on the 5,000 digits that come along; false: that is an error"
    )


class FolderConfig(DataConfig, extra="forbid"):
    """Of :class:`~digits.reading.folder.FolderDataModule`."""

    path: Folder = Field(description="the folder, with a sub-folder of pictures for each label")
    test_share: float = Field(gt=0, lt=1, description="share of the pictures to test on, where FOLDER/test is missing")


class ModelConfig(Section, extra="allow"):
    """What all networks have; the arguments of the one that is named join it once it is known."""

    name: str = Field(description="that of its file, of the group model")
    temperature: Positive = Field(
        description="divides the logits before the softmax; fitted after the training if images are held out for it"
    )
    weights: Annotated[str | None, Field(min_length=1), "a model or null"] = Field(
        None,
        description="trained weights to go on from: package for those that come along, a run's or a model's folder, "
        "a file of weights, or owner/model on the Hugging Face hub; null: new ones",
    )


class DeepDigitsConfig(ModelConfig, extra="forbid"):
    """Of :class:`~digits.network.DeepDigits`."""

    conv_dropout: Share = Field(description="share of the activations dropped after each pooling")
    dense_dropout: Share = Field(description="share of the activations dropped after each hidden dense layer")
    l2: NotNegative = Field(description="L2 regularization: weight of the kernels' squares in the loss; 0: none")


class SimpleCNNConfig(ModelConfig, extra="forbid"):
    """Of :class:`~digits.network.simple_cnn.SimpleCNN`."""

    kernel: Literal[3, 5, 7] = Field(description="side of the convolutions' kernels: M3, M5 or M7")


CLASSES: dict[str, type[DataConfig | ModelConfig]] = {"data": DataConfig, "model": ModelConfig}  # groups of classes
# What the package's own classes take, so that a mistake is said before torch is loaded, which takes seconds. Of another
# class it is read off the constructor.
SECTIONS: dict[str, type[DataConfig | ModelConfig]] = {
    "digits.data.module.MNISTDataModule": MNISTConfig,
    "digits.reading.folder.FolderDataModule": FolderConfig,
    "digits.network.deepdigits.DeepDigits": DeepDigitsConfig,
    "digits.network.simple_cnn.SimpleCNN": SimpleCNNConfig,
}


class AugmentationConfig(Section):
    """Arguments of :class:`~digits.data.augmentation.Augmentation`."""

    degrees: float = Field(ge=0, le=180, description="images are turned by up to so many degrees, either way")
    scale: Share = Field(description="made larger or smaller by up to this share, in width and in height")
    shear: Share = Field(description="slanted: shifted sideways by up to this share of the height")
    translate: float = Field(ge=0, le=14, description="moved by up to so many pixels of the 28, in x and in y")
    stroke_width: Share = Field(description="strokes made wider or narrower by up to so many pixels on each side")


class RecipeConfig(Section):
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


class Config(Section):
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
    keep: Literal["auto", "all", "none"] = Field(
        description="what is left of models, plots and checkpoints once a run is completed; auto: all, but in a sweep "
        "that holds images out only those of the best setting so far; none: only summary, metrics and log"
    )
    ckpt_path: Annotated[str | None, "a path, last, best or null"] = Field(
        description="begin from a checkpoint: its path, a run's folder, or last or best of the run's own folder"
    )
    checkpoint_every: Positive | None = Field(
        description="minutes between checkpoints within an epoch; null: only after epochs"
    )
    compile: Literal["auto"] | bool = Field(
        description="compile on a CPU what is around the convolutions; auto: in runs long enough for it to pay"
    )
    steps_per_execution: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=10_000)], "auto, or a whole number from 1 to 10,000"
    ] = Field(description="on a TPU, how many training steps the host sends off as one program; auto: 50")
    data: DataConfig = Field(description="the images; data=mnist5k takes the small set")
    model: ModelConfig = Field(description="the network")
    recipe: RecipeConfig = Field(description="how it is trained; recipe=keras takes the original's")
    trainer: TrainerConfig = Field(description="arguments of Lightning's Trainer; null leaves one to Lightning")
    logger: Annotated[dict[str, Any], "a class and what it takes"] = Field(
        description="where the figures go beside the run's folder: logger=tensorboard, csv, wandb or none"
    )
    callbacks: Annotated[list[dict[str, Any]], "a list of classes and what each takes"] = Field(
        description="Lightning callbacks beside the project's own: [{_target_: module.Class, argument: value}]"
    )


def check(settings: dict[str, Any]) -> Config:
    """The settings as a :class:`Config`.

    Raises:
        ConfigError: the first setting that is unknown, of a wrong type or out of range; one line that names the key,
            the value and what is allowed.
    """
    kind = Config
    settings = _without_targets(settings)
    try:
        Config.model_validate(settings)  # which is quick, and needs no class
        kind = config_for(settings)
        config = kind.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(one_line(explain(kind, error.errors()[0]))) from None
    _check_objects(config)
    return config


def _check_objects(config: Config) -> None:
    """Check what logger and callbacks take; raises ConfigError."""
    objects = [(f"callbacks.{number}", settings) for number, settings in enumerate(config.callbacks)]
    if config.logger.get("_target_") is not None:
        from lightning.pytorch.loggers import Logger  # here, as it takes seconds and other mistakes are said before

        check_object("logger", config.logger, Logger)
    for key, settings in objects:
        from lightning import Callback

        check_object(key, settings, Callback)


def _without_targets(settings: dict[str, Any]) -> dict[str, Any]:
    """``settings`` without the names of classes, which are those of the files; raises ConfigError for another."""
    rest = dict(settings)
    for group in CLASSES:
        section = rest.get(group)
        if isinstance(section, dict) and (target := section.get("_target_")) is not None:
            if target != target_of(group, str(section.get("name"))):
                raise ConfigError(f"{group}._target_={target}: is that of another file than {group}.name says")
            rest[group] = {key: value for key, value in section.items() if key != "_target_"}
    return rest


def config_for(settings: dict[str, Any]) -> type[Config]:
    """:class:`Config` with the arguments of the classes that ``settings`` name; those that are not ours are imported.

    Raises:
        ConfigError: there is no such class.
    """
    return _config_of(*(section_of_file(group, settings[group]["name"]) for group in CLASSES))


@functools.cache
def _config_of(*sections: type[DataConfig | ModelConfig]) -> type[Config]:
    fields: dict[str, Any] = {
        group: (section, Config.model_fields[group]) for group, section in zip(CLASSES, sections, strict=True)
    }
    return create_model("Config", __base__=Config, **fields)


def section_of_file(group: str, name: str) -> type[DataConfig | ModelConfig]:
    """What the class of `GROUP/NAME.yaml` takes; raises ConfigError if there is none."""
    if (known := SECTIONS.get(target_of(group, name))) is not None:
        return known
    given = frozenset({"seed", "eval_batch_size"} if group == "data" else ())
    return section_for(CLASSES[group], load_class(group, name, object), given)  # type: ignore[arg-type]  # a class has a hash
