"""Kinds of values that settings have, and what is common to their sections."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of the settings: no key but its own, no value of another type, nothing changed afterwards."""

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


TRAINING_IMAGES = {"mnist": 60_000, "mnist5k": 4_000, "fashion_mnist": 60_000, "kmnist": 60_000}  # known before read
