"""HTML in which nothing that others wrote can be markup: text is escaped where an element is made of it."""

from __future__ import annotations

from html import escape


class Markup(str):
    """What is markup already: made by `element`, or a constant of ours."""

    __slots__ = ()


VOID = {"meta", "link", "br"}
"""Elements without an end tag."""


def element(name: str, /, *children: str | Markup | None, **attributes: str | float | None) -> Markup:
    """Return an element; text among the children and all attributes are escaped, None is left out.

    An underscore in an attribute's name stands for a hyphen, one at its end for nothing (`class_`).
    """
    written = "".join(
        f' {key.removesuffix("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    inside = "".join(child if isinstance(child, Markup) else escape(child) for child in children if child is not None)
    return Markup(f"<{name}{written}>{inside}</{name}>")


def join(parts: list[Markup]) -> Markup:
    """Return the parts one after the other."""
    return Markup("".join(parts))
