"""What makes a page readable for everybody, asked of a real browser."""

from __future__ import annotations

from typing import Any

from support.browser import Page

__all__ = ["cut_off", "faint_texts", "nameless_controls"]

_FAINT = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const light = ([r, g, b]) => {
    const part = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    return .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] > .99) return colour;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = texts.nextNode();) {
    const element = node.parentElement, style = getComputedStyle(element);
    const hidden = !node.textContent.trim() || !element.getClientRects().length;
    if (hidden || /SCRIPT|STYLE/.test(element.tagName) || style.opacity === "0") continue;
    const colour = rgba(element.closest("svg") ? style.fill : style.color);
    const lights = [light(colour), light(behind(element))].sort((a, b) => b - a);
    const ratio = (lights[0] + .05) / (lights[1] + .05);
    const size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    if (ratio < needed) found.push(`${node.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
})()
"""
_CUT = """
[...document.querySelectorAll("body *")].filter(element => {
  const box = element.getBoundingClientRect();
  if (!box.width || box.right <= innerWidth + 1) return false;
  for (let at = element.parentElement; at && at !== document.body; at = at.parentElement)
    if (/auto|scroll/.test(getComputedStyle(at).overflowX)) return false;
  return !element.closest("svg");
}).map(element => element.outerHTML.slice(0, 80))
"""
_NAMELESS = """
[...document.querySelectorAll("a, button, [tabindex]")].filter(element =>
  !(element.textContent.trim() || element.getAttribute("aria-label"))
).map(element => element.outerHTML.slice(0, 80))
"""


def faint_texts(page: Page) -> list[Any]:
    """Return the texts with less contrast than WCAG AA asks for, and how much they have."""
    return list(page.evaluate(_FAINT))


def cut_off(page: Page) -> list[Any]:
    """Return the elements that reach over the window's edge and do not scroll in a box."""
    return list(page.evaluate(_CUT))


def nameless_controls(page: Page) -> list[Any]:
    """Return the links and buttons of which a screen reader has nothing to say."""
    return list(page.evaluate(_NAMELESS))
