"""What the jobs of a sweep say together: seeds of one setting made one row, ranked, and compared with the next."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from digits.sweep.jobs import COMPLETED, CROSS_ENTROPY, VAL_ACCURACY, Job

Interval = tuple[float, float]


@dataclass
class Figure:
    """The values of one figure over the seeds of a setting."""

    values: list[float]

    @property
    def mean(self) -> float:
        """Their mean; NaN of none."""
        return mean(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float | None:
        """Their standard deviation; None of less than two."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> Interval | None:
        """95 % interval of their mean, by Student's t; None of less than two."""
        if self.deviation is None:
            return None
        from scipy.stats import t  # takes half a second, and a sweep of single seeds has none

        half = float(t.ppf(0.975, len(self.values) - 1)) * self.deviation / math.sqrt(len(self.values))
        return self.mean - half, self.mean + half


@dataclass
class Setting:
    """Jobs that differ by the seed alone: ``values`` are the settings by which this one differs from the others."""

    values: dict[str, Any]
    jobs: list[Job]

    @property
    def completed(self) -> list[Job]:
        """Those that are."""
        return [job for job in self.jobs if job.state == COMPLETED]

    def figure(self, key: str) -> Figure:
        """A figure of the summaries, over the completed jobs that have it."""
        found = [job.figure(key) for job in self.completed]
        return Figure([value for value in found if value is not None])

    @property
    def rank(self) -> tuple[float, float]:
        """Less is better: accuracy on the validation images, then cross-entropy; of none, infinite."""
        accuracy, entropy = self.figure(VAL_ACCURACY), self.figure(CROSS_ENTROPY)
        return (
            -accuracy.mean if accuracy.values else math.inf,
            entropy.mean if entropy.values else math.inf,
        )

    def words(self) -> str:
        """As `dense_dropout=0.3 l2=0.001`."""
        names = short_names([*self.values])
        return " ".join(f"{names[key]}={text_of(value)}" for key, value in self.values.items()) or "the one setting"


def settings_of(jobs: Sequence[Job]) -> list[Setting]:
    """The ``jobs`` by their settings, best first; where none can be ranked, in the order of the jobs."""
    varied = [key for key in varied_keys(jobs) if key != "seed"]
    groups: dict[str, Setting] = {}
    for job in jobs:
        values = {key: job.settings[key] for key in varied if key in job.settings}
        groups.setdefault(repr(values), Setting(values, [])).jobs.append(job)
    return sorted(groups.values(), key=lambda setting: setting.rank)  # stable


def varied_keys(jobs: Sequence[Job]) -> list[str]:
    """The names of the settings by which ``jobs`` differ, `seed` among them."""
    seen: dict[str, set[str]] = {}
    for job in jobs:
        for key, value in job.settings.items():
            seen.setdefault(key, set()).add(repr(value))
    return [key for key, values in seen.items() if len(values) > 1]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key, or the whole one where two have the same."""
    last = {key: key.rpartition(".")[2] for key in keys}
    count = Counter(last.values())
    return {key: name if count[name] == 1 else key for key, name in last.items()}


def text_of(value: Any, digits: int = 4) -> str:
    """A value as one types it, a fraction with so many ``digits``."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def ranks(jobs: Sequence[Job]) -> bool:
    """Whether images were held out, so that settings can be compared without the test split."""
    return any(job.figure(VAL_ACCURACY) is not None for job in jobs)


def verdict(settings: Sequence[Setting]) -> str:
    """Whether the first of ``settings`` is better than the second by more than chance, in words.

    Both are compared seed by seed (paired t-test), as a seed decides also which images are held out; where they have
    not the same seeds, by Welch's test.
    """
    ranked = [setting for setting in settings if setting.figure(VAL_ACCURACY).values]
    if len(ranked) < 2:
        return ""
    best, following = ranked[:2]
    first, second = ({job.settings.get("seed"): job.figure(VAL_ACCURACY) for job in s.completed} for s in ranked[:2])
    paired = first.keys() == second.keys()
    a, b = [[v for _, v in sorted(f.items(), key=lambda i: str(i[0])) if v is not None] for f in (first, second)]
    said = f"The best, {best.words()}, and the next, {following.words()}"
    difference = 100 * (mean(a) - mean(b))
    if len(a) < 2 or len(b) < 2:
        return (
            f"{said}, differ by {difference:.2f} points of accuracy, from one seed: that decides nothing. The same "
            "seed on one thread and on two differs by up to 8 of 5,000 images (0.16 points); add seeds, seed=0,1,2."
        )
    p = _p_value(a, b, paired)
    more = "by more than chance" if p < 0.05 else "by no more than chance"
    how = "seed by seed" if paired else "of different seeds"
    return (
        f"{said}, differ by {difference:.3f} points of accuracy, {more} (p = {p:.2g} by a t-test {how}, "
        f"{len(a)} seed{'s' * (len(a) > 1)})."
    )


def _p_value(a: list[float], b: list[float], paired: bool) -> float:
    from scipy.stats import ttest_ind, ttest_rel

    if paired and len({round(x - y, 12) for x, y in zip(a, b, strict=True)}) == 1:  # no spread, by which t is divided
        return 1.0 if a == b else 0.0
    if not paired and len({*a}) == len({*b}) == 1:
        return 1.0 if a[0] == b[0] else 0.0
    return float((ttest_rel(a, b) if paired else ttest_ind(a, b, equal_var=False)).pvalue)
