"use strict";
// Behaviour of the page: draw figures, sort tables, switch layers, show the runs behind a value.
const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const plots = [...document.querySelectorAll(".plot")];
const onEach = (selector, event, react) => document.querySelectorAll(selector).forEach(
  node => node.addEventListener(event, () => react(node)));
const config = {...{{ plotly_config|tojson }}, displayModeBar: false};

// Figures are written for white paper; the page's colours replace those of text, lines and series.
function layoutColours(layout) {
  const ink = style("--ink"), soft = style("--soft"), line = style("--line");
  const changes = {
    "font.color": ink, "title.font.color": ink,
    "hoverlabel.bgcolor": style("--raised"), "hoverlabel.bordercolor": style("--strong"),
    "hoverlabel.font.color": ink,
  };
  for (const axis of ["xaxis", "yaxis"])
    Object.assign(changes, {
      [`${axis}.gridcolor`]: line, [`${axis}.zerolinecolor`]: soft, [`${axis}.title.font.color`]: soft,
    });
  // Plotly draws the line and the ticks of an axis that has colours for them.
  Object.assign(changes, {"xaxis.linecolor": soft, "xaxis.tickcolor": soft});
  (layout.shapes ?? []).forEach(shape => assign(shape, {"line.color": line}));
  return changes;
}
function traceColours(trace) {
  const colour = trace.meta && style("--" + trace.meta);
  if (!colour) return {};
  const changes = {"marker.color": colour};
  if (trace.mode.includes("lines")) changes["line.color"] = colour;
  for (const bars of ["error_x", "error_y"]) if (trace[bars]) changes[`${bars}.color`] = colour;
  return changes;
}
function recolour(figure) {
  assign(figure.layout, layoutColours(figure.layout));
  figure.data.forEach(trace => assign(trace, traceColours(trace)));
}
function assign(object, changes) {
  for (const [path, value] of Object.entries(changes)) {
    const names = path.split("."), last = names.pop();
    names.reduce((inner, name) => inner[name] ??= {}, object)[last] = value;
  }
}
// plotly.js is five megabytes: it is run when the first figure is drawn, not while the page opens.
function loadPlotly() {
  if (window.Plotly) return;
  const script = document.createElement("script");
  script.textContent = document.getElementById("plotlyjs").textContent;
  document.head.append(script);
}
const drawn = plot => plot.data !== undefined;
function theme() {
  plots.filter(drawn).forEach(plot => {
    recolour(plot);
    Plotly.redraw(plot);
  });
}
function draw(plot) {
  if (drawn(plot)) return;
  loadPlotly();
  const figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
  recolour(figure);
  const unchecked = plot.closest("section, header").querySelectorAll("input[data-group]:not(:checked)");
  const off = new Set([...unchecked].map(input => input.dataset.group));
  figure.data.forEach(trace => { if (off.has(trace.legendgroup)) trace.visible = false; });
  Plotly.newPlot(plot, figure.data, figure.layout, config);
  plot.on("plotly_click", event => {
    const isKeys = value => /^[0-9a-f]{12}( [0-9a-f]{12})*$/.test(value);
    const keys = [event.points[0].customdata].flat().find(isKeys);
    if (keys) showRuns(keys);
  });
}
// Figures are drawn when they are about to scroll into view: all at once would take seconds.
const observer = new IntersectionObserver(entries => {
  entries.filter(entry => entry.isIntersecting).forEach(entry => {
    observer.unobserve(entry.target);
    draw(entry.target);
  });
}, {rootMargin: "600px"});
plots.forEach(plot => observer.observe(plot));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
matchMedia("print").addEventListener("change", theme);
// A printed page has two figures side by side, whatever the window's width.
addEventListener("beforeprint", () => {
  plots.forEach(draw);
  theme();
  plots.forEach(plot => {
    Plotly.relayout(plot, {width: plot.classList.contains("wide") ? 670 : 325});
  });
});
addEventListener("afterprint", () => {
  theme();
  plots.forEach(plot => Plotly.relayout(plot, {width: null, autosize: true}));
});

// Legends of figures: one switch for all panels of a section, and for published values in tables.
onEach("input[data-group]", "change", input => {
  const section = input.closest("section, header"), group = input.dataset.group;
  [...section.querySelectorAll(".plot")].filter(drawn).forEach(plot => {
    const indices = plot.data.flatMap((trace, index) => trace.legendgroup === group ? [index] : []);
    if (indices.length) Plotly.restyle(plot, {visible: input.checked}, indices);
  });
  if (group === "paper") {
    section.classList.toggle("no-paper", !input.checked);
    section.querySelectorAll("input[data-group=paper]").forEach(other => {
      other.checked = input.checked;
    });
  }
});

// Legend of the overlays: one switch per pathology.
onEach("input[data-layer]", "change", input => {
  const layers = `.layer[data-k="${input.dataset.layer}"]`;
  input.closest("section").querySelectorAll(layers).forEach(layer => {
    layer.hidden = !input.checked;
  });
});

// The contents mark the section at the top of the window; on phones they open below a button.
document.querySelectorAll("nav").forEach(nav => {
  const button = nav.querySelector("button");
  const toggle = open => {
    nav.classList.toggle("open", open);
    button.setAttribute("aria-expanded", open);
  };
  button.addEventListener("click", () => toggle(!nav.classList.contains("open")));
  nav.querySelectorAll("a").forEach(link => link.addEventListener("click", () => toggle(false)));
});
function markSection() {
  document.querySelectorAll("nav").forEach(nav => {
    const links = [...nav.querySelectorAll("a")], line = nav.offsetHeight + 80;
    const top = link => document.querySelector(link.hash).getBoundingClientRect().top;
    const current = links.filter(link => top(link) < line).at(-1);
    links.forEach(link => link.removeAttribute("aria-current"));
    current?.setAttribute("aria-current", "true");
    nav.querySelector("b").textContent = current?.textContent ?? "";
  });
}
let marking = false;
addEventListener("scroll", () => {
  if (marking) return;
  marking = true;
  requestAnimationFrame(() => { marking = false; markSection(); });
}, {passive: true});
markSection();

// A table that is wider than its place says so, and scrolls from the keyboard.
const widths = new ResizeObserver(entries => entries.forEach(({target}) => {
  const scroll = target.closest(".scroll"), wide = scroll.scrollWidth > scroll.clientWidth + 1;
  scroll.classList.toggle("wide", wide);
  if (wide) scroll.setAttribute("tabindex", "0");
  else scroll.removeAttribute("tabindex");
}));
function watchWidth(scroll) {
  widths.observe(scroll);
  widths.observe(scroll.firstElementChild);
}
document.querySelectorAll(".scroll").forEach(watchWidth);

// Tables sort by a header: numbers by their value, empty cells last. Rows that share a row heading
// stay together; they are sorted by their highest number, or by their lowest in ascending order,
// baselines aside. An average keeps its place.
function groups(body) {
  const all = [];
  let open = 0;
  for (const row of body.rows) {
    if (open === 0) all.push({rows: [], cells: [], average: row.classList.contains("average")});
    const group = all.at(-1), line = group.rows.length;
    group.rows.push(row);
    let column = 0;
    for (const cell of row.cells) {
      while (group.cells[line]?.[column]) column++;
      for (let down = 0; down < cell.rowSpan; down++) {
        const cells = group.cells[line + down] ??= [];
        for (let right = 0; right < cell.colSpan; right++) cells[column + right] = cell;
      }
      open = Math.max(open, cell.rowSpan);
    }
    open--;
  }
  return all;
}
function number(cell) {
  const plain = text => text.replaceAll(",", "").replaceAll("\u2212", "-");
  const written = cell && plain(cell.textContent).match(/[-+]?\d*\.?\d+/)?.[0];
  const text = cell?.dataset.value ?? written;
  return text === undefined ? NaN : Number(text);
}
function sortValue(group, column, numeric, descending) {
  if (!numeric) return group.cells[0][column]?.textContent;
  const lines = group.cells.filter((_, n) => !group.rows[n].classList.contains("baseline"));
  const numbers = lines.map(line => number(line[column])).filter(x => !Number.isNaN(x));
  return numbers.length ? Math[descending ? "max" : "min"](...numbers) : undefined;
}
function sort(table, header, column) {
  const numeric = header.classList.contains("number"), previous = header.getAttribute("aria-sort");
  const descending = previous ? previous === "ascending" : numeric;
  const body = table.tBodies[0], all = groups(body), first = all[0].average;
  const keyed = all.filter(group => !group.average)
    .map(group => [sortValue(group, column, numeric, descending), group]);
  const compare = (x, y) =>
    numeric ? x - y : x.localeCompare(y, undefined, {numeric: true}) || x.localeCompare(y);
  keyed.sort(([x], [y]) => {
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return descending ? -compare(x, y) : compare(x, y);
  });
  const sorted = keyed.map(([, group]) => group), fixed = all.filter(group => group.average);
  const ordered = first ? [...fixed, ...sorted] : [...sorted, ...fixed];
  body.append(...ordered.flatMap(group => group.rows));
  table.tHead.querySelectorAll("[aria-sort]").forEach(other => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
}
function sortable(table) {
  if (!table.tHead || (table.tBodies[0]?.rows.length ?? 0) < 2) return;
  let column = 0;
  for (const header of table.tHead.rows[table.tHead.rows.length - 1].cells) {
    const first = column;
    column += header.colSpan;
    if (header.classList.contains("strip") || !header.textContent.trim()) continue;
    const button = document.createElement("button");  // makes sorting work from the keyboard
    button.className = "sort";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(table, header, first));
  }
}
document.querySelectorAll("table").forEach(sortable);

// The runs behind a value: their settings, keys and data.
let runsByKey;
function runs() {
  if (runsByKey) return runsByKey;
  runsByKey = new Map();
  document.querySelectorAll("script.runs").forEach(script => {
    const study = JSON.parse(script.textContent);
    for (const [stage, key, label, indices, distinct, seconds, host, data] of study.runs) {
      runsByKey.set(key.slice(0, 12), {
        stage, key, label, distinct, seconds, host, data, study: script.id,
        inputs: indices.map(index => study.runs[index][1].slice(0, 12)),
        all: {...study.common[stage], ...distinct},
      });
    }
  });
  return runsByKey;
}
function withAncestors(keys) {
  const all = new Set(keys);  // grows during the loop, which therefore visits inputs of inputs too
  for (const key of all) (runs().get(key)?.inputs ?? []).forEach(input => all.add(input));
  return [...all];
}
function element(name, text, kind = "") {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
}
const settingsText = settings => Object.entries(settings)
  .map(([name, x]) => `${name} = ${typeof x === "object" ? JSON.stringify(x) : x}`).join(", ");
const COLUMNS = [
  ["Run", ""], ["Directory in the store", "key"], ["Settings that differ within the stage", ""],
  ["Data", "key"], ["Seconds", "number"], ["Host", ""],
];
function runsTable(keys) {
  const table = element("table", undefined, "runs"), body = table.createTBody();
  const head = table.createTHead().insertRow();
  COLUMNS.forEach(([title, kind]) => head.append(element("th", title, kind)));
  for (const key of keys) {
    const run = runs().get(key), row = body.insertRow();
    const cells = run
      ? [run.label, `${run.stage}/${run.key.slice(0, 20)}`, settingsText(run.distinct),
         run.data?.slice(0, 12) ?? "", run.seconds, run.host]
      : ["", key, "not on this page: see the file of all runs", "", "", ""];
    COLUMNS.forEach(([, kind], column) => row.append(element("td", cells[column], kind)));
    if (run) {
      row.cells[1].title = `Key: ${run.key}`;
      row.cells[3].title = run.data ? `Fingerprint of the data: ${run.data}` : "";
    }
    if (run && Object.keys(run.all).length) {
      const more = element("details");
      more.append(element("summary", "all settings"));
      more.addEventListener("toggle", () => {
        more.querySelector("pre") ?? more.append(element("pre", JSON.stringify(run.all, null, 1)));
      });
      row.cells[2].append(more);
    }
  }
  const scroll = element("div", undefined, "scroll");
  scroll.append(table);
  sortable(table);
  watchWidth(scroll);
  return scroll;
}
function showRuns(keys) {
  const dialog = document.getElementById("runs-dialog"), cells = keys.split(" ");
  const text = cells.length === 1 ? "One run and its" : `${cells.length} runs and their`;
  dialog.querySelector("div").replaceChildren(
    element("p", `${text} inputs:`, "note"), runsTable(withAncestors(cells)));
  dialog.showModal();
}
document.addEventListener("click", event => {
  const keys = event.target.closest?.("[data-cells]")?.dataset.cells;
  if (keys) showRuns(keys);
  if (event.target.matches("dialog")) event.target.close();
});
onEach("details[data-runs]", "toggle", details => {
  if (details.childElementCount > 1) return;
  const ofStudy = [...runs()].filter(([, run]) => run.study === details.dataset.runs);
  details.append(runsTable(ofStudy.map(([key]) => key)));
});
