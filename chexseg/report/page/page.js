"use strict";
// What the page does: it draws figures, sorts tables, switches layers and leads from a number to its runs.
const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const plots = [...document.querySelectorAll(".plot")];
const config = {...{{config}}, displayModeBar: false};

// Figures are written for white paper; the page's colours replace those of text and lines.
function colours() {
  const ink = style("--ink"), soft = style("--soft"), line = style("--line");
  return {
    "font.color": ink, "title.font.color": ink, "xaxis.linecolor": soft, "xaxis.tickcolor": soft, "yaxis.gridcolor": line,
    "xaxis.title.font.color": soft, "yaxis.title.font.color": soft,
    "hoverlabel.bgcolor": style("--raised"), "hoverlabel.bordercolor": style("--strong"), "hoverlabel.font.color": ink,
  };
}
function hues(trace) {
  const now = trace.meta && style("--" + trace.meta);
  if (!now) return {};
  const change = {"marker.color": now};
  if (trace.mode.includes("lines")) change["line.color"] = now;
  if (trace.error_y) change["error_y.color"] = now;
  return change;
}
function put(object, changes) {
  for (const [path, value] of Object.entries(changes)) {
    const names = path.split("."), last = names.pop();
    names.reduce((inner, name) => inner[name] ??= {}, object)[last] = value;
  }
}
// Five megabytes of script are read when the first figure is drawn, and not while the page opens.
function plotly() {
  if (window.Plotly) return;
  const script = document.createElement("script");
  script.textContent = document.getElementById("plotlyjs").textContent;
  document.head.append(script);
}
const drawn = plot => plot.data !== undefined;
function theme() {
  plots.filter(drawn).forEach(plot => {
    put(plot.layout, colours());
    plot.data.forEach(trace => put(trace, hues(trace)));
    Plotly.redraw(plot);
  });
}
function draw(plot) {
  if (drawn(plot)) return;
  plotly();
  const figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
  put(figure.layout, colours());
  figure.data.forEach(trace => put(trace, hues(trace)));
  const off = new Set([...plot.closest("section").querySelectorAll("input[data-group]:not(:checked)")].map(input => input.dataset.group));
  figure.data.forEach(trace => { if (off.has(trace.legendgroup)) trace.visible = false; });
  Plotly.newPlot(plot, figure.data, figure.layout, config);
  plot.on("plotly_click", event => {
    const keys = [event.points[0].customdata].flat().find(value => /^[0-9a-f]{12}( [0-9a-f]{12})*$/.test(value));
    if (keys) way(keys);
  });
}
// A figure is drawn when it comes near: all at once would keep a reader of the first lines waiting.
const near = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => {
  near.unobserve(entry.target);
  draw(entry.target);
}), {rootMargin: "600px"});
plots.forEach(plot => near.observe(plot));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
matchMedia("print").addEventListener("change", theme);
// Two figures stand side by side on a printed page, whatever the window's width.
addEventListener("beforeprint", () => {
  plots.forEach(draw);
  theme();
  plots.forEach(plot => Plotly.relayout(plot, {width: plot.classList.contains("wide") ? 670 : 325}));
});
addEventListener("afterprint", () => { theme(); plots.forEach(plot => Plotly.relayout(plot, {width: null, autosize: true})); });

// Legend of Figure 2: one switch for all its panels, and for the paper's values in Table 1.
document.querySelectorAll("input[data-group]").forEach(input => input.addEventListener("change", () => {
  const section = input.closest("section"), group = input.dataset.group;
  [...section.querySelectorAll(".plot")].filter(drawn).forEach(plot => {
    const indices = plot.data.flatMap((trace, index) => trace.legendgroup === group ? [index] : []);
    if (indices.length) Plotly.restyle(plot, {visible: input.checked}, indices);
  });
  if (group === "paper") {
    section.classList.toggle("no-paper", !input.checked);
    section.querySelectorAll("input[data-group=paper]").forEach(other => { other.checked = input.checked; });
  }
}));

// Legend of the overlays: one switch a pathology.
document.querySelectorAll("input[data-layer]").forEach(input => input.addEventListener("change", () => {
  input.closest("section").querySelectorAll(`.layer[data-k="${input.dataset.layer}"]`).forEach(layer => { layer.hidden = !input.checked; });
}));

// Overlays of one pathology at a time.
document.querySelectorAll("select[data-choice]").forEach(select => select.addEventListener("change", () => {
  select.closest("section").querySelectorAll("[data-pathology]").forEach(grid => { grid.hidden = grid.dataset.pathology !== select.value; });
}));

// Tables sort by a header: numbers by their value, empty cells last. Rows that a heading spans stay together and count by their
// highest number, or their lowest where the lowest come first; an average keeps its place.
function groups(body) {
  const found = [];
  let open = 0;
  for (const row of body.rows) {
    if (open === 0) found.push({rows: [], cells: [], average: row.classList.contains("average")});
    const group = found.at(-1), line = group.rows.length;
    group.rows.push(row);
    let column = 0;
    for (const cell of row.cells) {
      while (group.cells[line]?.[column]) column++;
      for (let down = 0; down < cell.rowSpan; down++) {
        for (let right = 0; right < cell.colSpan; right++) (group.cells[line + down] ??= [])[column + right] = cell;
      }
      open = Math.max(open, cell.rowSpan);
    }
    open--;
  }
  return found;
}
function number(cell) {
  const text = cell?.dataset.value ?? cell?.textContent.replaceAll(",", "").replaceAll("\u2212", "-").match(/[-+]?\d*\.?\d+/)?.[0];
  return text === undefined ? NaN : Number(text);
}
function value(group, column, numeric, descending) {
  if (!numeric) return group.cells[0][column]?.textContent;
  const known = group.cells.map(line => number(line[column])).filter(x => !Number.isNaN(x));
  return known.length ? Math[descending ? "max" : "min"](...known) : undefined;
}
function sort(table, header, column) {
  const numeric = header.classList.contains("number"), before = header.getAttribute("aria-sort");
  const descending = before ? before === "ascending" : numeric;
  const body = table.tBodies[0], all = groups(body), first = all[0].average;
  const keyed = all.filter(group => !group.average).map(group => [value(group, column, numeric, descending), group]);
  keyed.sort(([x], [y]) => {
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    const order = numeric ? x - y : x.localeCompare(y, undefined, {numeric: true}) || x.localeCompare(y);
    return descending ? -order : order;
  });
  const sorted = keyed.map(([, group]) => group), fixed = all.filter(group => group.average);
  body.append(...(first ? [...fixed, ...sorted] : [...sorted, ...fixed]).flatMap(group => group.rows));
  table.tHead.querySelectorAll("[aria-sort]").forEach(other => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
}
function sortable(table) {
  if (!table.tHead || (table.tBodies[0]?.rows.length ?? 0) < 2) return;
  let column = 0;
  for (const header of table.tHead.rows[table.tHead.rows.length - 1].cells) {
    const at = column;
    column += header.colSpan;
    if (header.classList.contains("strip") || !header.textContent.trim()) continue;
    const button = document.createElement("button");  // so that the keyboard sorts too
    button.className = "sort";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(table, header, at));
  }
}
document.querySelectorAll("table").forEach(sortable);

// From a number to the runs behind it: their settings, keys, data.
let known;
function runs() {
  if (known) return known;
  known = new Map();
  document.querySelectorAll("script.runs").forEach(script => {
    const told = JSON.parse(script.textContent), mine = [];
    for (const [stage, key, label, inputs, own, seconds, host, data] of told.runs) {
      mine.push({stage, key, label, inputs: inputs.map(place => told.runs[place][1].slice(0, 12)), own, all: {...told.common[stage], ...own}, seconds, host, data});
    }
    mine.forEach(run => known.set(run.key.slice(0, 12), {...run, study: script.id}));
  });
  return known;
}
function behind(keys) {
  const found = new Set(keys);  // grows while it's gone through: the runs themselves, then what they read, and so on
  for (const key of found) (runs().get(key)?.inputs ?? []).forEach(input => found.add(input));
  return [...found];
}
function element(name, text, kind = "") {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
const settings = own => Object.entries(own).map(([name, what]) => `${name} = ${typeof what === "object" ? JSON.stringify(what) : what}`).join(", ");
function listed(keys) {
  const table = element("table", undefined, "runs"), body = table.createTBody(), head = table.createTHead().insertRow();
  ["Run", "In the store", "What sets it apart from the stage’s other runs", "Data", "Seconds", "Host"].forEach((title, column) => head.append(element("th", title, column === 4 ? "number" : "")));
  for (const key of keys) {
    const run = runs().get(key), row = body.insertRow();
    const cells = run ? [run.label, `${run.stage}/${run.key.slice(0, 20)}`, settings(run.own), run.data?.slice(0, 12) ?? "", run.seconds, run.host] : ["", key, "not on this page: see the file of all runs", "", "", ""];
    cells.forEach((text, column) => row.append(element("td", column === 1 || column === 3 ? undefined : text, ["", "key", "", "key", "number", ""][column])));
    [1, 3].forEach(column => row.cells[column].append(element("code", cells[column])));
    if (run) [row.cells[1].title, row.cells[3].title] = [`Key: ${run.key}`, run.data ? `Fingerprint of the data: ${run.data}` : ""];
    if (run && Object.keys(run.all).length) {
      const more = element("details");
      more.append(element("summary", "all settings"));
      more.addEventListener("toggle", () => more.querySelector("pre") ?? more.append(element("pre", JSON.stringify(run.all, null, 1))));
      row.cells[2].append(more);
    }
  }
  const scroll = element("div", undefined, "scroll");
  scroll.append(table);
  sortable(table);
  return scroll;
}
function way(keys) {
  const dialog = document.getElementById("way"), cells = keys.split(" ");
  dialog.querySelector("div").replaceChildren(
    element("p", `${cells.length === 1 ? "One run" : `${cells.length} runs`}, and what ${cells.length === 1 ? "it" : "they"} read:`, "note"), listed(behind(cells)));
  dialog.showModal();
}
document.addEventListener("click", event => {
  const keys = event.target.closest?.("[data-cells]")?.dataset.cells;
  if (keys) way(keys);
  if (event.target.id === "way") event.target.close();
});
document.querySelectorAll("details[data-runs]").forEach(details => details.addEventListener("toggle", () => {
  if (details.childElementCount === 1) details.append(listed([...runs()].filter(([, run]) => run.study === details.dataset.runs).map(([key]) => key)));
}));
