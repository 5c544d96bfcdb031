"""Which arguments of Lightning's Trainer may be set, to what, and why the others may not."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from digits.settings.types import Count, Limit, NotNegative, Section, Some

REFUSED = {  # arguments of Lightning's Trainer that cannot be set, and why
    "logger": "is a group of its own: logger=tensorboard, csv, wandb or none",
    "callbacks": "is a list beside the trainer: callbacks=[{_target_: module.Class}]",
    "default_root_dir": "is the run's folder: hydra.run.dir=FOLDER",
    "plugins": "the project's own write checkpoints that a crash cannot damage",
    "sync_batchnorm": "batch statistics are always those of the global batch",
    "use_distributed_sampler": "the data module cuts global batches, of which each device gets an equal part",
    "reload_dataloaders_every_n_epochs": "the images stay in memory and do not change",
    "limit_predict_batches": "training predicts nothing; pictures are read by digits predict",
    "barebones": "would leave no figures, no checkpoint and no model",
    "enable_autolog_hparams": "the settings are logged with the result, by their names on the command line",
    "model_registry": "a model is published by digits push",
}


class TrainerConfig(Section):
    """Arguments of Lightning's ``Trainer``; null leaves one to Lightning. Help describes the common ones."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = Field(
        description="what it is computed on; auto: a TPU if there is one, else a GPU, else the CPU"
    )
    devices: Annotated[
        Literal["auto", -1] | Count | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)],
        "auto, a number of devices, -1, or numbers of GPUs in brackets",
    ] = Field(
        description="auto: one GPU or CPU, or all cores of a TPU; 4: so many GPUs, or processes on a CPU; "
        "-1: all GPUs; [1]: the second GPU"
    )
    num_nodes: Count = Field(description="machines that train together, started by torchrun or Slurm")
    # no "bf16-true", "16-true": the small steps of averages and of batch statistics would be rounded to nothing
    precision: Annotated[
        Literal["auto", 16, 32, 64, "16", "32", "64", "16-mixed", "bf16-mixed", "32-true", "64-true", "bf16"],
        "auto, 32-true, bf16-mixed, 16-mixed or 64-true",
    ] = Field(description="of the computation; auto: bf16-mixed where it is faster, else 32-true")
    max_epochs: Count | None = Field(description="times through the training images; null: as recipe.epochs says")
    max_steps: Literal[-1] | Count = Field(description="stop after so many steps; -1: when the epochs are over")
    max_time: Annotated[str, Field(pattern=r"^\d+:\d\d:\d\d:\d\d$"), "DD:HH:MM:SS"] | None = Field(
        description="stop after so many days, hours, minutes and seconds"
    )
    limit_train_batches: Some = Field(description="train on a part of each epoch only")
    overfit_batches: Limit = Field(description="keep so many batches of the training images alone; 0: all")
    fast_dev_run: bool | Annotated[int, Field(ge=0), "a number of batches"] = Field(
        description="try everything on one batch, or so many, and keep nothing"
    )
    accumulate_grad_batches: Count = Field(description="batches whose gradients are added up for one step")
    gradient_clip_val: NotNegative | None = Field(description="gradients are clipped to this norm; null: they are not")
    deterministic: bool | Literal["warn"] | None = Field(description="use none but deterministic algorithms")
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
    val_check_interval: Some
    num_sanity_val_steps: int = Field(ge=-1)
    log_every_n_steps: Count
    enable_model_summary: bool
    gradient_clip_algorithm: Literal["norm", "value"] | None
    benchmark: bool | None
    inference_mode: bool
    detect_anomaly: bool

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, settings: Any) -> Any:
        for name in REFUSED.keys() & settings if isinstance(settings, dict) else ():
            raise ValueError(f"{name}={settings[name]}: cannot be set: {REFUSED[name]}")
        return settings
