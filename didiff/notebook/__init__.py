"""What people touch: plots and pictures, sliders and a playground, a museum of bugs, checks."""

from . import checks, museum, pictures, playground, plots, widgets

__all__ = ["checks", "museum", "pictures", "playground", "plots", "widgets"]
