"""The jobs of a sweep, planned and checked without composing each."""

import time

import pytest

from digits.errors import ConfigError
from digits.settings.command_line import check_command_line, plan


def jobs(*overrides: str):
    return plan([], list(overrides)).jobs()


def test_all_combinations_are_planned_in_the_order_of_their_values():
    planned = jobs("model.dense_dropout=0.3,0.5", "model.l2=0,1e-3")
    assert [job.overrides for job in planned] == [
        ("model.dense_dropout=0.3", "model.l2=0"),
        ("model.dense_dropout=0.3", "model.l2=0.001"),
        ("model.dense_dropout=0.5", "model.l2=0"),
        ("model.dense_dropout=0.5", "model.l2=0.001"),
    ]


def test_seeds_of_a_setting_stand_side_by_side_wherever_they_are_named():
    assert [job.settings["seed"] for job in jobs("seed=0,1", "model.l2=0,1e-3")] == [0, 1, 0, 1]


def test_a_job_is_known_by_its_checked_settings():
    (first, second) = jobs("model.l2=1e-3,0.01")
    assert (first.settings["model.l2"], second.settings["model.l2"]) == (0.001, 0.01)
    assert first.settings["recipe.learning_rate"] == 0.004


def test_the_settings_are_those_that_composing_the_job_gives():
    from digits.settings.command_line import configure
    from digits.settings.compare import deciding

    for job in jobs("recipe.augmentation=null,{degrees: 5}", "model.l2=0,1e-3", "data=mnist5k,mnist", "seed=1"):
        if "augmentation={" not in str(job.overrides):
            assert job.settings == deciding(configure(list(job.overrides)))


def test_what_is_written_differently_and_means_the_same_is_one_job():
    assert len(jobs("model.l2=0.001,1e-3")) == 1


def test_a_group_is_swept_with_its_own_settings():
    first, second = jobs("model=deepdigits,simple_cnn")
    assert "model.l2" in first.settings and "model.kernel" in second.settings


def test_a_range_and_a_list_of_words_are_values():
    assert [job.settings["seed"] for job in jobs("seed=range(3,6)")] == [3, 4, 5]
    assert [job.settings["recipe.schedule"] for job in jobs("recipe.schedule=constant,one_cycle")] == [
        "constant",
        "one_cycle",
    ]


def test_a_setting_of_hydra_itself_is_no_part_of_a_job():
    assert plan(["hydra.sweep.dir=x"], ["seed=0,1"]).jobs()[0].overrides == ("seed=0",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.l2=0,-1", "model.l2"),
        ("model.dense_dropout=0.3,2", "model.dense_dropout"),
        ("model.dense_dropou=0.3,0.5", "dense_dropou"),
        ("model.l2=interval(0,1)", "an interval is for a search"),
        ("model=deepdigits,nothing", "nothing"),
        ("keep=all,none", "no result depends on it"),
    ],
)
def test_each_value_is_checked(override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        plan([], [override, "seed=0,1"])


def test_a_thousand_values_are_checked_within_a_second():
    check_command_line(["-m", "seed=0,1"])  # imports what is imported once
    seconds = []
    for _ in range(3):  # other tests may have the processor too, so the fastest counts
        begun = time.process_time()
        check_command_line(["-m", "seed=range(0,1000)"])
        seconds.append(time.process_time() - begun)
    assert min(seconds) < 1


def test_what_a_search_is_to_try_is_checked_in_a_file_too():
    with pytest.raises(ConfigError, match=r"model\.l2"):
        plan(["hydra/sweeper=search", "hydra.sweeper.params={model.l2: 'interval(-1,1)'}"], [])


def test_a_file_of_an_experiment_can_name_a_search():
    grid = plan([], ["experiment=search"])
    searched = [axis.key for axis in grid.axes if len(axis.texts) > 1]
    assert searched == ["model.dense_dropout", "model.conv_dropout", "model.l2", "recipe.learning_rate"]
