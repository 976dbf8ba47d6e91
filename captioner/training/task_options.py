"""Whether the options of a training make sense."""

from __future__ import annotations

from captioner.errors import CaptionerError

OBJECTIVES = ("cross_entropy", "self_critical", "language")


def check_objective(objective: str, init_from: str | None, samples: int) -> None:
    """Refuse an unknown objective, or one that lacks what it needs.

    Raises:
        CaptionerError: names the option and the value.
    """
    if objective not in OBJECTIVES:
        raise CaptionerError(
            f"model.objective={objective!r}: choose one of {', '.join(OBJECTIVES)}"
        )
    if samples < 2:
        raise CaptionerError(
            f"model.samples={samples}: must be at least 2, each is compared with the others"
        )
    if objective == "self_critical" and init_from is None:
        raise CaptionerError(
            "model.objective=self_critical improves a model that can caption: name one, or a "
            "checkpoint of `captioner fit`, with model.init_from"
        )


def check_above_zero(**values: float) -> None:
    """Refuse values that are not above 0.

    Raises:
        CaptionerError: names the option and the value.
    """
    for name, value in values.items():
        if not value > 0:
            raise CaptionerError(f"model.{name}={value}: must be above 0")


def check_not_negative(**values: float) -> None:
    """Refuse values below 0.

    Raises:
        CaptionerError: names the option and the value.
    """
    for name, value in values.items():
        if value < 0:
            raise CaptionerError(f"model.{name}={value}: must be at least 0")


def check_shares(**values: float) -> None:
    """Refuse values that are not from 0 to below 1.

    Raises:
        CaptionerError: names the option and the value.
    """
    for name, value in values.items():
        if not 0 <= value < 1:
            raise CaptionerError(f"model.{name}={value}: must be at least 0 and below 1")
