"""The oldest company in which sliders work."""

import sys

OLDEST = {"ipywidgets": (7, 7), "IPython": (7, 34)}
OLDEST_PYTHON = (3, 11)


def require(found: dict[str, str]) -> None:
    """Raise ImportError with the remedy if Python or one of {package: its version} is too old."""
    if sys.version_info < OLDEST_PYTHON:
        raise ImportError(
            f"didiff needs Python {dotted(OLDEST_PYTHON)} or newer: this is {python()}"
        )
    for package, version in found.items():
        numbers = tuple(int(part) for part in version.split(".")[:2])
        if numbers < OLDEST[package]:
            least = dotted(OLDEST[package])
            raise ImportError(
                f"{package} {version} is too old for didiff's sliders, which need {least} or newer:"
                f" python -m pip install --upgrade '{package.lower()}>={least}'"
            )


def dotted(numbers: tuple[int, ...]) -> str:
    """7.34 for (7, 34)."""
    return ".".join(map(str, numbers))


def python() -> str:
    """The version of this Python, 3.11.7."""
    return dotted(tuple(sys.version_info[:3]))
