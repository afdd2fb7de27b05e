"""Figures beside their targets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """``at_least``: the target is a lower bound, else an upper one. ``value`` is None when it was not to be had."""

    name: str
    value: float | None
    target: float
    unit: str
    at_least: bool = False
    note: str = ""

    @property
    def good(self) -> bool:
        if self.value is None:
            return False
        return self.value >= self.target if self.at_least else self.value <= self.target


def show(title: str, figures: list[Figure]) -> None:
    """Name, value, target, value / target, and a word of judgement."""
    width = max(len(figure.name) for figure in figures) + 2
    print(f"\n{title}\n{'':<{width}}{'measured':>12}{'target':>14}{'ratio':>8}")
    for figure in figures:
        sign = ">=" if figure.at_least else "<="
        target = f"{sign} {figure.target:g} {figure.unit}"
        if figure.value is None:
            measured, ratio, verdict = "none", "", "MISSED"
        else:
            measured = f"{figure.value:.4g} {figure.unit}"
            ratio = f"{figure.value / figure.target:.2f}"
            verdict = "ok" if figure.good else "MISSED"
        print(f"{figure.name:<{width}}{measured:>12}{target:>14}{ratio:>8}  {verdict}  {figure.note}".rstrip())
