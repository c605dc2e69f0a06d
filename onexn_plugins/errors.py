"""The one exception family of the package."""

from __future__ import annotations

__all__ = ["MissingDependencyError", "OneXNError"]


class OneXNError(Exception):
    """Something the user can mend: names where it happened, what is wrong and what to do.

    Attributes:
        layer: the layer, file or argument the error is about.
        reason: what is wrong with it.
        fix: what to do about it.
    """

    def __init__(self, layer: str, reason: str, fix: str) -> None:
        super().__init__(f"{layer}: {reason}. {fix}.")
        self.layer, self.reason, self.fix = layer, reason, fix

    def __reduce__(self) -> tuple[type[OneXNError], tuple[str, str, str]]:
        return type(self), (self.layer, self.reason, self.fix)


class MissingDependencyError(OneXNError, ImportError):
    """A toolkit is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        OneXNError.__init__(
            self, package, "is not installed", f"Install it with: pip install 'onexn-plugins[{extra}]'"
        )
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[type[OneXNError], tuple[str, str]]:  # type: ignore[override]
        return type(self), (self.package, self.extra)


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
