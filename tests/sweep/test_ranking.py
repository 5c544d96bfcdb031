"""Seeds made one row, rows ranked, and the best compared with the next."""

import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from scipy import stats

from digits.sweep.jobs import Job
from digits.sweep.ranking import settings_of, short_names, text_of, varied_keys, verdict


def job(val: float | None, seed: int = 0, state: str = "completed", entropy: float = 0.1, **settings: Any) -> Job:
    figures = {"val/sparse_accuracy": val, "val/cross_entropy": entropy, "test/sparse_accuracy": 0.5}
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return Job(Path("x"), state, "", named | {"seed": seed}, figures)


def test_jobs_that_differ_by_the_seed_alone_are_one_row():
    values = [0.98, 0.99, 0.985]
    (row,) = settings_of([job(value, seed) for seed, value in enumerate(values)])
    figure = row.figure("val/sparse_accuracy")
    assert (figure.mean, figure.deviation) == (pytest.approx(mean(values)), pytest.approx(stdev(values)))


def test_the_interval_is_that_of_students_t():
    values = [0.98, 0.99, 0.985]
    (row,) = settings_of([job(value, seed) for seed, value in enumerate(values)])
    expected = stats.t.interval(0.95, 2, mean(values), stats.sem(values))
    assert row.figure("val/sparse_accuracy").interval == pytest.approx(expected)


def test_one_seed_has_no_interval():
    (row,) = settings_of([job(0.98)])
    assert row.figure("val/sparse_accuracy").interval is None


def test_rows_are_in_the_order_of_the_mean_accuracy():
    rows = settings_of([job(0.97, model__l2=0.1), job(0.99, model__l2=0.2), job(0.98, model__l2=0.3)])
    assert [row.values["model.l2"] for row in rows] == [0.2, 0.3, 0.1]


def test_equal_ones_are_in_the_order_of_the_cross_entropy():
    rows = settings_of([job(0.98, entropy=0.3, model__l2=0.1), job(0.98, entropy=0.2, model__l2=0.2)])
    assert [row.values["model.l2"] for row in rows] == [0.2, 0.1]


def test_the_test_split_decides_nothing():
    jobs = [job(None, model__l2=0.1), job(None, model__l2=0.2)]
    jobs[1].summary["test/sparse_accuracy"] = 0.9
    assert [row.values["model.l2"] for row in settings_of(jobs)] == [0.1, 0.2]


def test_a_job_that_is_not_completed_is_in_no_mean():
    (row,) = settings_of([job(0.98), job(0.5, 1, "interrupted")])
    assert row.figure("val/sparse_accuracy").values == [0.98]


def test_rows_without_any_come_last():
    rows = settings_of([job(0.99, state="killed", model__l2=0.1), job(0.5, model__l2=0.2)])
    assert [row.values["model.l2"] for row in rows] == [0.2, 0.1]


def test_a_figure_that_is_not_finite_is_none():
    assert math.isnan(settings_of([job(math.nan)])[0].figure("val/sparse_accuracy").mean)


def test_keys_that_all_share_are_not_among_those_that_vary():
    assert varied_keys([job(0.9, 0, model__l2=0.1), job(0.9, 1, model__l2=0.1)]) == ["seed"]


def test_a_key_goes_by_its_last_part_unless_two_have_the_same():
    assert short_names(["model.l2", "model.rate", "data.rate"]) == {
        "model.l2": "l2",
        "model.rate": "model.rate",
        "data.rate": "data.rate",
    }


@pytest.mark.parametrize(
    ("value", "text"), [(0.1 + 0.2, "0.3"), (1e-5, "1e-05"), (True, "true"), (None, "null"), ("adam", "adam"), (3, "3")]
)
def test_values_are_written_as_one_types_them(value: Any, text: str):
    assert text_of(value) == text


def seeds(values: list[float], **settings: Any) -> list[Job]:
    return [job(value, seed, **settings) for seed, value in enumerate(values)]


def test_a_difference_that_all_seeds_have_is_more_than_chance():
    jobs = seeds([0.990, 0.992, 0.991], model__l2=0.0) + seeds([0.980, 0.9825, 0.9812], model__l2=0.1)
    said = verdict(settings_of(jobs))
    assert said.startswith(
        "The best, l2=0, and the next, l2=0.1, differ by 0.977 points of accuracy, by more than chance"
    )
    p = stats.ttest_rel([0.990, 0.992, 0.991], [0.980, 0.9825, 0.9812]).pvalue
    assert f"p = {p:.2g}" in said


def test_a_difference_within_the_spread_is_no_more_than_chance():
    jobs = seeds([0.990, 0.980, 0.991], model__l2=0.0) + seeds([0.982, 0.989, 0.984], model__l2=0.1)
    assert "by no more than chance" in verdict(settings_of(jobs))


def test_other_seeds_are_compared_by_welchs_test():
    jobs = seeds([0.990, 0.980, 0.991], model__l2=0.0) + seeds([0.982, 0.989], model__l2=0.1)
    p = stats.ttest_ind([0.990, 0.980, 0.991], [0.982, 0.989], equal_var=False).pvalue
    said = verdict(settings_of(jobs))
    assert f"p = {p:.2g} by a t-test of different seeds" in said


def test_one_seed_decides_nothing():
    said = verdict(settings_of([job(0.9912, model__l2=0.0), job(0.99, model__l2=0.1)]))
    assert "differ by 0.12 points of accuracy, from one seed: that decides nothing" in said
    assert "8 of 5,000" in said


def test_equal_seeds_do_not_divide_by_zero():
    jobs = seeds([0.99, 0.99], model__l2=0.0) + seeds([0.98, 0.98], model__l2=0.1)
    assert "by more than chance (p = 0 " in verdict(settings_of(jobs))


def test_a_single_setting_is_compared_with_nothing():
    assert verdict(settings_of(seeds([0.98, 0.99]))) == ""
