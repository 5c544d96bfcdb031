"""Where Hydra looks for sweepers: those of DeepDigits, `hydra/sweeper=grid` (the default) and `=search`."""

from digits.sweep import grid, search


class GridSweeper(grid.GridSweeper):
    """All combinations of values."""


class SearchSweeper(search.SearchSweeper):
    """Trials that Optuna proposes."""
