"""Whether text on a page can be read."""

from __future__ import annotations

import re

import numpy as np
from playwright.sync_api import Page

READABLE = 4.5
"""Contrast of text, WCAG 2.2, success criterion 1.4.3."""


def luminance(color: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = [int(each) / 255 for each in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(page: Page, selector: str) -> float:
    ink, ground = page.locator(selector).first.evaluate(
        """node => {
             const ink = getComputedStyle(node).color, ground = (node) => getComputedStyle(node).backgroundColor;
             while (ground(node) === "rgba(0, 0, 0, 0)" && node.parentElement) node = node.parentElement;
             return [ink, ground(node)];
           }"""
    )
    dark, bright = sorted((luminance(ink), luminance(ground)))
    return (bright + 0.05) / (dark + 0.05)
