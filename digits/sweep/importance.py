"""How much each key that was swept matters, by Optuna."""

import contextlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from digits.sweep.jobs import VAL_ACCURACY
from digits.sweep.ranking import Setting, text_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def importances(settings: Sequence[Setting], names: dict[str, str]) -> dict[str, float] | None:
    """Share of the variance of the validation accuracy that each key explains (PED-ANOVA; Watanabe et al. 2023).

    Args:
        settings: those with a completed job.
        names: what each key is called in the answer.

    Returns:
        None without Optuna, or where there are too few settings.
    """
    try:
        import optuna
    except ImportError:
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {key: _distribution([setting.values.get(key) for setting in settings]) for key in names}
    study = optuna.create_study(direction="maximize")
    for setting in settings:
        found = {key: setting.values.get(key) for key in names}
        values = {key: v if _is_number(v) else text_of(v) for key, v in found.items()}
        accuracy = setting.figure(VAL_ACCURACY).mean
        study.add_trial(optuna.trial.create_trial(params=values, distributions=space, value=accuracy))
    with contextlib.suppress(ValueError, RuntimeError), warnings.catch_warnings():  # too few, or all alike
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        return {names[key]: share for key, share in shares.items()}
    return None


def _distribution(values: Sequence[Any]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(map(_is_number, values)):
        return FloatDistribution(min(values), max(values))
    return CategoricalDistribution(list(dict.fromkeys(map(text_of, values))))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
