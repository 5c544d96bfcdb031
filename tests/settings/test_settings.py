"""The configuration: what is refused, how it is said, and what the experiments are made of."""

import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, configure
from lightning import Trainer

from digits.errors import ConfigError
from digits.settings.command_line import check_command_line, settings_for_help
from digits.settings.help import help_text
from digits.settings.schema import CLASSES, SECTIONS, Config
from digits.settings.targets import CONF
from digits.settings.trainer import REFUSED, TrainerConfig
from digits.settings.wording import fields_of

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.dense_dropout=1.5", "a number from 0 to under 1"),
        ("model.conv_dropout=-0.1", "a number from 0 to under 1"),
        ("model.l2=-1", "a number from 0"),
        ("model.l2=.nan", "a number from 0"),
        ("data.batch_size=1", "a whole number from 2"),
        ("data.batch_size=12.5", "a whole number from 2"),
        ("data.batch_size=many", "a whole number from 2"),
        ("data.val_size=70000", "together more than the 60,000 training images"),
        ("data.offline_fallback=perhaps", "true or false"),
        ("seed=-1", "from 0 to 4,294,967,295"),
        ("trainer.max_epochs=2.5", "a whole number from 1"),
        ("trainer.max_epochs=0", "a whole number from 1"),
        ("trainer.accelerator=npu", "auto, cpu, gpu"),
        ("trainer.devices=0", "auto, a number of devices, -1, or numbers of GPUs in brackets"),
        ("trainer.precision=8", "auto, 32-true, bf16-mixed"),
        ("trainer.limit_train_batches=1.5", "a share of them above 0.0 and up to 1.0"),
        ("trainer.limit_test_batches=0", "a number of batches"),
        ("trainer.limit_val_batches=1.5", "a share of them from 0.0 to 1.0"),
        ("trainer.max_steps=0", "-1 or a whole number from 1"),
        ("trainer.max_time=abc", "DD:HH:MM:SS"),
        ("trainer.strategy=ddp_spawn", "auto or ddp"),
        ("recipe.augmentation.degrees=200", "a number from 0 to 180"),
        ("recipe.optimizer=sgd", "adam or adamw"),
    ],
)
def test_a_wrong_type_or_a_value_out_of_range_names_the_key_the_value_and_what_is_allowed(override, said):
    key, value = override.split("=")
    with pytest.raises(ConfigError) as error:
        check_command_line([override])
    message = str(error.value)
    assert message.startswith(f"{key}=")
    assert value.removeprefix(".") in message
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("override", ["model.droput=0.3", "+model.droput=0.3", "modle.dense_dropout=0.3", "sead=1"])
def test_an_unknown_key_is_named_with_what_is_allowed_in_its_place(override):
    with pytest.raises(ConfigError, match="no such setting.*allowed here: ") as error:
        check_command_line([override])
    assert str(error.value).startswith(override.lstrip("+").split("=")[0].split(".")[0])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("model.dense_droput", "model.dense_dropout"),
        ("batch_size", "data.batch_size"),  # without its section
        ("model.learning_rate", "recipe.learning_rate"),
        ("sed", "seed"),
        ("overfit_batches", "trainer.overfit_batches"),
        ("train.overfit_batches", "trainer.overfit_batches"),  # in a section that there is not
        ("augmentation", "recipe.augmentation"),
    ],
)
def test_a_mistyped_key_is_answered_with_the_one_that_was_meant(typed: str, meant: str):
    with pytest.raises(ConfigError, match=rf"did you mean {meant}\?"):
        check_command_line([f"{typed}=1"])


@pytest.mark.parametrize("typed", ["train", "recipe.lr", "model.kernel", "trainer.gpus"])
def test_a_key_that_resembles_none_is_answered_with_no_guess(typed: str):
    with pytest.raises(ConfigError, match="no such setting; allowed here") as error:
        check_command_line([f"{typed}=1"])
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("typed", "meant"), [("trainer=gpu", "trainer.accelerator=gpu"), ("recipe=adam", "recipe.optimizer=adam")]
)
def test_a_value_that_is_given_to_a_group_is_answered_with_the_setting_that_takes_it(typed: str, meant: str):
    with pytest.raises(ConfigError, match=rf"^{typed}: no such file of the group; did you mean {meant}\?"):
        check_command_line([typed])


@pytest.mark.parametrize("override", ["experiment=fast", "experiment=null", "data=cifar10"])
def test_an_unknown_file_of_a_group_is_answered_with_those_there_are(override):
    with pytest.raises(ConfigError, match="options|group"):
        check_command_line([override])


@pytest.mark.parametrize("override", ["model.l2=[1", "data.batch_size", "data.batch_size=32,64"])
def test_what_hydra_cannot_read_is_one_line(override):
    with pytest.raises(ConfigError) as error:
        check_command_line([override])
    assert "\n" not in str(error.value)
    assert "++" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data=[1]"], r"data=\[1\]: data is a group, which takes the name of a file: fashion_mnist, folder"),
        (["-m", "data=[1],mnist"], r"data=\[1\],mnist: data is a group"),
        (["experiment=null"], "experiment=null: experiment is a group"),
        (["hydra=1"], "hydra=1: hydra is a group"),
        (["hydra/launcher=nope"], "hydra/launcher=nope: no such file of the group"),
        (["model.name=" + "x" * 5_000], "no such file of the group"),  # longer than a file's name can be
        (["+=x"], r"\+=x: names no setting"),
        ([""], "an empty word"),
        (["name=\x1b[31m"], r"name=\\x1b\[31m: token recognition error"),  # which would colour the terminal
        (["seed=" + "[" * 300 + "]" * 300], "brackets are nested more than 12 deep"),
        (["name=" + "x" * 30_000], "longer than 20,000 characters"),
        (["model=${oc.decode:1}"], "Error resolving interpolation"),
        (["data.batch_size=${nope}"], "data.batch_size: Interpolation key 'nope' not found"),
        (["seed=${seed}"], "seed: Recursive interpolation"),
        (["hydra.job.num=x"], "Error merging override hydra.job.num=x: Value 'x'"),
        (["-m", "hydra.sweeper.params=1"], "hydra.sweeper.params=1: allowed are keys with their values"),
        (["-m", "seed=range(0,1000000000)"], r"range\(0,1000000000\): more than 10,000 values"),
        (["-m", "seed=range(0,101)", "model.l2=range(0,100)"], "a sweep of 10,100 jobs"),
        (["--cfg", "all", "-m", "seed=1,2"], "--multirun and --cfg: do not go together"),
        (["--resolve"], "--resolve: goes with --cfg only"),
        (["--cfg", "x"], "invalid choice: 'x'"),
        (["--experimental-rerun", "x"], "--experimental-rerun: is not supported"),
        (["-sc", "query=bash"], "is for the shell to call"),
    ],
)
def test_what_hydra_cannot_take_is_one_line_that_names_it(arguments: list[str], said: str):
    with pytest.raises(ConfigError, match=said) as error:
        check_command_line(arguments)
    assert str(error.value).isprintable() and len(str(error.value)) < 1100


def test_validation_and_batch_must_leave_something_to_train_on():
    with pytest.raises(ConfigError, match="60,000 training images of mnist"):
        check_command_line(["data.batch_size=59000"])


def test_scoring_the_test_split_each_epoch_and_a_validation_split_exclude_each_other():
    with pytest.raises(ConfigError, match=r"data\.val_size=0"):
        check_command_line(["data.test_each_epoch=true"])


def test_every_value_of_a_sweep_is_checked_before_its_first_job():
    check_command_line(["-m", "model.dense_dropout=0.3,0.5", "model.l2=1e-4,1e-3"])
    with pytest.raises(ConfigError, match=r"model\.l2=-1"):
        check_command_line(["-m", "model.dense_dropout=0.3,0.5", "model.l2=1e-4,-1"])


@pytest.mark.parametrize(
    "override",
    [
        "trainer.accelerator=tpu",
        "trainer.max_epochs=3",
        "trainer.limit_train_batches=0.5",
        "trainer.limit_train_batches=7",
        "trainer.precision=bf16-mixed",
        "trainer.precision=32",
        "trainer.devices=[1]",
        "trainer.fast_dev_run=true",
        "trainer.fast_dev_run=3",
        "trainer.deterministic=warn",
        "trainer.max_time=00:01:00:00",
        "trainer.gradient_clip_val=1",
        "trainer.max_steps=7",
        "trainer.limit_val_batches=0",
        "model.conv_dropout=0",
        "model.l2=1e-4",
        "data.val_size=0",
        "data.data_dir=/a folder/with spaces",
        "seed=7",
        "hydra.run.dir=elsewhere",
        "recipe.augmentation=null",
    ],
)
def test_usual_arguments_are_plain_overrides(override):
    check_command_line([override])


def test_every_argument_of_the_trainer_that_is_listed_is_one_that_lightning_has():
    import inspect

    from lightning import Trainer

    assert set(configure().trainer.model_dump()) <= set(inspect.signature(Trainer.__init__).parameters)


def test_deepdigits_is_the_original_to_its_last_default():
    config = configure("experiment=deepdigits")
    assert (config.data.batch_size, config.data.val_size, config.data.test_each_epoch) == (512, 0, True)
    assert (config.model.conv_dropout, config.model.dense_dropout, config.model.l2) == (0.25, 0.5, 0.001)
    assert (config.recipe.optimizer, config.recipe.learning_rate, config.recipe.schedule) == ("adam", 1e-3, "constant")
    assert (config.recipe.epochs, config.recipe.augmentation, config.recipe.ema_decay) == (80, None, 0)
    assert (config.recipe.label_smoothing, config.recipe.weight_decay) == (0, 0)


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_opens_with_the_command_that_uses_it(path: Path):
    assert any(line.startswith("# python train.py") for line in path.read_text().splitlines()[:2])


def test_each_argument_of_lightnings_trainer_can_be_set_or_is_refused_with_a_reason():
    arguments = {*inspect.signature(Trainer.__init__).parameters} - {"self"}
    assert arguments == {*TrainerConfig.model_fields} | {*REFUSED}


@pytest.mark.parametrize("argument", REFUSED)
def test_what_cannot_be_set_of_the_trainer_says_why(argument: str):
    with pytest.raises(ConfigError) as error:
        check_command_line([f"trainer.{argument}=1"])
    assert str(error.value) == f"trainer.{argument}=1: cannot be set: {REFUSED[argument]}"


def test_a_setting_that_needs_a_value_is_named():
    with pytest.raises(ConfigError, match=r"^data.path: a value is needed"):
        check_command_line(["data=folder"])


@pytest.mark.parametrize("target", SECTIONS)
def test_what_is_checked_without_torch_is_what_the_constructor_takes(target: str):
    module, name = target.rsplit(".", 1)
    constructor = inspect.signature(getattr(importlib.import_module(module), name).__init__)
    common = {*CLASSES["model"].model_fields, *CLASSES["data"].model_fields}
    own = {*constructor.parameters} - {"self", "common", *common}
    assert own == {*SECTIONS[target].model_fields} - common


def test_a_refused_override_is_one_line_with_status_2_and_leaves_no_folder(train_py: Run, tmp_path: Path):
    result = train_py("model.dense_dropout=1.5")
    assert result.returncode == 2
    assert result.stderr.splitlines() == ["train.py: model.dense_dropout=1.5: allowed is a number from 0 to under 1"]
    assert not list(tmp_path.iterdir())


def test_help_shows_the_settings_without_loading_torch(train_py: Run):
    code = (
        "import runpy, sys; sys.argv = ['train.py', '--help']\n"
        f"try: runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "finally: print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "dense_dropout" in result.stdout
    assert result.stdout.rstrip().endswith("False")


# ---- help


def help_on(*arguments: str, width: int = 80) -> str:
    settings = settings_for_help([*arguments, "--help"])
    assert settings is not None
    return help_text("python train.py", settings, width)


def test_help_says_of_each_setting_its_default_what_is_allowed_and_what_it_does():
    text = help_on()
    assert (
        "  data.batch_size=256  (a whole number from 2)\n"
        "      images in a step, over all devices together; batch normalisation needs\n"
        "      more than one\n"
    ) in text
    assert "  seed=0  (" in text and "  resume=true  (" in text and "  ckpt_path=null  (" in text


def test_help_leaves_no_setting_out():
    text = help_on()
    assert not [key for key, _ in fields_of(Config) if f" {key}=" not in text]


def test_every_setting_but_rare_ones_of_lightnings_trainer_has_a_description():
    assert {key.split(".")[0] for key, field in fields_of(Config) if not field.description} == {"trainer"}


def test_help_shows_the_values_of_the_experiment_it_is_asked_about():
    assert "  recipe.epochs=30  (" in help_on("experiment=best")
    assert "  recipe.augmentation=null  (" in help_on("recipe=keras")
    assert "  model.l2=0  (" in help_on("-m", "model.l2=0,1")


@pytest.mark.parametrize("width", [60, 80])
def test_help_fits_the_terminal(width: int):
    lines = help_on(width=width).partition("Examples:")[0].splitlines()
    assert max(map(len, lines)) <= width


def test_the_examples_of_help_are_ones_that_train_takes():
    examples = help_on().partition("Examples:\n")[2].splitlines()
    assert len(examples) >= 2
    for example in examples:
        check_command_line(example.removeprefix("  python train.py ").split())
