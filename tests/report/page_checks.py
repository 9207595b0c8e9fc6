"""What can be wrong with a page at a width and in a theme, as expressions for the browser."""

from __future__ import annotations

from typing import Any

from tests.report.chromium import Visit

#: Pixels by which the page is wider than its window.
WIDEST = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
#: Switches whose key differs from the figure's mark: colour, or a shape that CSS doesn't know.
KEYS = """[...document.querySelectorAll("input[data-group]")].map(input => {
  const key = input.nextElementSibling, group = input.dataset.group;
  const plot = [...input.closest("section, header").querySelectorAll(".plot")]
    .find(plot => plot.data.some(trace => trace.legendgroup === group));
  const trace = plot?.data.find(trace => trace.legendgroup === group && trace.meta);
  const probe = document.createElement("i");
  probe.style.color = trace?.marker?.color ?? trace?.line.color;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return ["paper", "trials"].includes(group) || getComputedStyle(key).backgroundColor === colour
    ? null : [group, getComputedStyle(key).backgroundColor, colour];
}).filter(Boolean)"""
#: Darkest and lightest grid line of all figures, as the sum of red, green and blue.
GRID = """(() => {
  const lines = [...document.querySelectorAll(".plot :is(.xgrid, .ygrid)")];
  const sums = lines.map(line => getComputedStyle(line).stroke.match(/\\d+/g).slice(0, 3)
    .reduce((sum, x) => sum + Number(x), 0));
  return [Math.min(...sums), Math.max(...sums), lines.length];
})()"""
#: Texts of figures that overlap: labels of axes, names of rows and titles.
OVERPRINTED = """plots.flatMap(plot => {
  const boxes = [...plot.querySelectorAll(".xtick text, .ytick text, .annotation-text, .gtitle, .xtitle")]
    .filter(text => text.textContent.trim()).map(text => [text, text.getBoundingClientRect()]);
  return boxes.flatMap(([one, a], n) => boxes.slice(n + 1).filter(([, b]) =>
    a.left < b.right - 2 && b.left < a.right - 2 && a.top < b.bottom - 2 && b.top < a.bottom - 2)
    .map(([other]) => `${plot.dataset.figure}: ${one.textContent} | ${other.textContent}`));
})"""
#: Tables whose score isn't in view, or that are wider than their place and don't say so.
HIDDEN_SCORES = """[...document.querySelectorAll(".scroll > table:not(.runs)")].filter(table => {
  const place = table.parentElement.getBoundingClientRect();
  const score = table.querySelector("tbody .score") ?? table.querySelector("tbody td.number");
  const box = score?.getBoundingClientRect();
  return box?.width && (box.left < place.left - 1 || box.right > place.right + 1);
}).map(table => table.closest("section, header").id + ": " + table.rows[0].textContent.trim())"""
UNMARKED = """[...document.querySelectorAll(".scroll")].filter(scroll =>
  (scroll.scrollWidth > scroll.clientWidth + 1) !== (scroll.classList.contains("wide") && scroll.tabIndex === 0))
  .map(scroll => scroll.closest("section, header").id)"""

#: Pixels from the top of the page to the end of the main figure, with what is above it.
MAIN_FIGURE = """[...document.querySelectorAll("header .plot")].slice(0, 1)
  .map(plot => Math.round(plot.getBoundingClientRect().bottom + scrollY))"""
#: Height of a first screen.
SCREEN = 800


async def faults(page: Visit, width: int, dark: bool) -> dict[str, Any]:
    """Return check -> what it finds at this width in this theme, an empty list if nothing."""
    await page.resize(width, dark=dark)
    darkest, lightest, lines = await page.evaluate(GRID)
    faint = lightest < 250 if dark else darkest > 500
    wide = await page.evaluate(WIDEST)
    return {
        "wider than the window": [wide] if wide > 0 else [],
        "a main figure below the first screen": [
            bottom for bottom in await page.evaluate(MAIN_FIGURE) if bottom > SCREEN
        ],
        "switches unlike the figure's marks": await page.evaluate(KEYS),
        "grid lines that aren't faint": [] if lines and faint else [darkest, lightest, lines],
        "overprinted texts": await page.evaluate(OVERPRINTED),
        "scores out of view": await page.evaluate(HIDDEN_SCORES),
        "tables that scroll and don't say so": await page.evaluate(UNMARKED),
    }
