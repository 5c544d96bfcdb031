"""Settings of runs, side by side: which of them decide the result, and under which names."""

from typing import Any

from digits.settings.schema import Config

RECORD = "config.yaml"  # in a run's folder: the settings that it was begun with
# Settings that leave a run's result as it is.
FREE = {
    "name",
    "resume",
    "keep",
    "checkpoint_every",
    "steps_per_execution",
    "data.data_dir",
    "data.offline_fallback",
    "trainer.log_every_n_steps",
    "trainer.enable_checkpointing",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.profiler",
    "trainer.detect_anomaly",
    "trainer.max_time",
}


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``settings`` by the names that the command line knows them by, as "model.l2"; lists stay whole."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def deciding(settings: Config | dict[str, Any]) -> dict[str, Any]:
    """Those of ``settings`` that decide a run's result, by their names; what they leave out may differ between runs."""
    if isinstance(settings, Config):
        settings = settings.model_dump(mode="json")
    return {key: value for key, value in flat(settings).items() if key not in FREE and not key.startswith("logger.")}
