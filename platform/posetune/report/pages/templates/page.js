// Draws the page's charts over their pictures, and lets a person select a trial everywhere at once.
// A point of a chart names its trial by `customdata`; all else about a trial is in the page's data.
(() => {
"use strict";
const page = JSON.parse(document.getElementById("page-data").textContent);
const trials = new Map(page.trials.map(trial => [trial.number, trial]));
const figures = [];
const dark = matchMedia("screen and (prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 600px)");
// After Okabe and Ito, each with a contrast of at least 3 to its background.
const PALETTES = {
  light: ["#0072b2", "#a36a00", "#007d5c", "#a8518a", "#c44900", "#2a7fb8", "#1b1b1b", "#555555"],
  dark: ["#56b4e9", "#e6a935", "#2fc79a", "#e59cc7", "#ff8c42", "#7cc4f0", "#f2f2f2", "#b4bac2"],
};
const SCALES = {  // from the lowest number to the highest, or from the worst trial to the best
  light: ["#aebccb", "#5f86ad", "#00284f"],
  dark: ["#465563", "#5c9bd1", "#e2f1ff"],
};
let selected = null;

// -- colours ------------------------------------------------------------------------------------

function mixed(scale, share) {
  const place = Math.min(share * 2, 1.999), i = Math.floor(place), part = place - i;
  const channel = (colour, k) => parseInt(colour.slice(1 + 2 * k, 3 + 2 * k), 16);
  const parts = [0, 1, 2].map(k =>
    Math.round(channel(scale[i], k) * (1 - part) + channel(scale[i + 1], k) * part));
  return `rgb(${parts.join(",")})`;
}

function coloured(trace) {
  const scheme = dark.matches ? "dark" : "light", meta = trace.meta || {};
  const scale = SCALES[scheme].map((colour, i) => [i / 2, colour]);
  const quiet = style("--quiet");
  if (meta.scale) {
    if (trace.type === "contour") return { ...trace, colorscale: scale };
    const bar = { ...trace.marker.colorbar, outlinewidth: 0, tickfont: { color: quiet } };
    const line = { ...trace.marker.line, color: style("--text") };
    return { ...trace, marker: { ...trace.marker, colorscale: scale, colorbar: bar, line } };
  }
  const colour = meta.share === undefined
    ? PALETTES[scheme][meta.colour || 0] : mixed(SCALES[scheme], meta.share);
  const line = { ...(trace.marker || {}).line, color: colour };
  const marker = { ...trace.marker, color: colour, line };
  return { ...trace, marker, line: { ...trace.line, color: colour }, textfont: { color: quiet } };
}

const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function layoutOf(layout) {
  const text = style("--text"), quiet = style("--quiet"), grid = style("--grid");
  const axis = given => ({
    automargin: true, gridcolor: grid, linecolor: quiet, zeroline: false, tickcolor: quiet,
    ...given, title: { standoff: 8, ...given.title },
  });
  return {
    ...layout, xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    shapes: (layout.shapes || []).map(shape => ({ ...shape, line: { color: grid, width: 2 } })),
    font: { family: "system-ui, sans-serif", size: 12, color: text },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 12, r: 12, t: 12, b: 12 }, hovermode: "closest", clickmode: "event",
    hoverlabel: { bgcolor: style("--box"), bordercolor: quiet, font: { color: text }, align: "left" },
    legend: { orientation: "h", y: -0.16, yanchor: "top", font: { size: 11 } },
    dragmode: narrow.matches ? false : "zoom",
  };
}

// -- what is said of a trial ----------------------------------------------------------------------

const plain = text => String(text).replace(/[&<>]/g, c => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
const words = trial => [
  `trial ${trial.number}: ${trial.state}, ${trial.epochs} epochs`,
  ...(trial.value ? [`${page.metric} ${trial.value}`] : []),
  ...Object.entries(trial.params).map(([name, value]) => `${name} ${value}`),
  ...(trial.reason ? [trial.reason] : []),
];

function hover(trace) {
  if (!trace.customdata) return trace;
  const said = new Map();
  const text = trace.customdata.map(number => {
    if (!trials.has(number)) return "";
    if (!said.has(number)) said.set(number, words(trials.get(number)).map(plain).join("<br>"));
    return said.get(number);
  });
  const here = trace.meta.step ? "so far %{y:.4g}<br>" : "";
  return { ...trace, text, hovertemplate: here + "%{text}<extra></extra>" };
}

// -- drawing ---------------------------------------------------------------------------------------

const CONFIG = { responsive: true, displayModeBar: false, displaylogo: false };

function pointsOf(figure, number) {
  const x = [], y = [];
  for (const trace of figure.data) {
    if (!trace.customdata || number === null) continue;
    let found = false;
    trace.customdata.forEach((of, i) => {
      if (of === number) { x.push(trace.x[i]); y.push(trace.y[i]); found = true; }
    });
    if (found) { x.push(null); y.push(null); }
  }
  return { x, y };
}

function tracesOf(figure) {
  const traces = figure.data.map(trace => coloured(hover(trace)));
  if (!figure.linked) return traces;
  const colour = dark.matches ? "#ffd54a" : "#b3008f";
  const isLines = figure.data.some(trace => trace.customdata && /lines/.test(trace.mode) && !trace.meta.step);
  const mode = isLines ? "lines+markers" : "markers";
  return [...traces, {
    ...pointsOf(figure, selected), mode, name: "selected", hoverinfo: "skip", showlegend: false,
    line: { color: colour, width: 4 },
    marker: { color: colour, size: 13, symbol: "circle-open", line: { color: colour, width: 3 } },
  }];
}

async function draw(figure) {
  await Plotly.react(figure.plot, tracesOf(figure), layoutOf(figure.layout), CONFIG);
}

async function drawAll() {
  for (const element of document.querySelectorAll("figure.chart")) {
    const figure = JSON.parse(element.querySelector("script").textContent);
    figure.plot = element.querySelector(".plot");
    figure.linked = figure.data.some(trace => trace.customdata);
    element.classList.add("drawn");
    await draw(figure);
    figures.push(figure);
    figure.plot.on("plotly_click", event => {
      const number = event.points[0].customdata;
      if (trials.has(number)) select(number === selected ? null : number);
    });
    await new Promise(done => setTimeout(done));  // whoever scrolls meanwhile is served first
  }
  dark.addEventListener("change", () => figures.forEach(draw));
  performance.mark("charts-drawn");
  document.documentElement.dataset.charts = figures.length;
}

async function loadPlotly() {
  const holder = document.getElementById("plotly");
  const packed = Uint8Array.from(atob(holder.textContent), c => c.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(unpacked).text();
  holder.remove();
  document.head.append(script);
}

// -- selecting -------------------------------------------------------------------------------------

const remembered = {  // a page in a closed frame has no storage
  get() { try { return sessionStorage.getItem(page.key); } catch { return null; } },
  set(value) { try { sessionStorage.setItem(page.key, value); } catch { /* it is then forgotten */ } },
};
const panel = document.getElementById("selected");

function select(number) {
  selected = trials.has(number) ? number : null;
  remembered.set(selected === null ? "" : String(selected));
  panel.hidden = selected === null;
  panel.querySelector("p").textContent = selected === null ? "" : words(trials.get(selected)).join("; ");
  for (const row of document.querySelectorAll("tr[data-trial]")) {
    const here = Number(row.dataset.trial) === selected;
    row.classList.toggle("selected", here);
    row.querySelector("button").setAttribute("aria-pressed", String(here));
  }
  for (const figure of figures.filter(f => f.linked)) {
    const { x, y } = pointsOf(figure, selected);
    Plotly.restyle(figure.plot, { x: [x], y: [y] }, [figure.data.length]);
  }
}

panel.addEventListener("click", event => {
  const step = Number(event.target.dataset.step);
  if (Number.isNaN(step)) return;
  const place = page.trials.findIndex(trial => trial.number === selected) + step;
  if (step === 0) select(null);
  else if (page.trials[place]) select(page.trials[place].number);
});
addEventListener("keydown", event => { if (event.key === "Escape") select(null); });

// -- tables ----------------------------------------------------------------------------------------

function buttonIn(cell, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...cell.childNodes);
  button.addEventListener("click", act);
  cell.append(button);
  return button;
}

const sortable = text => {
  const number = parseFloat(text.replace(/^\+/, ""));
  return Number.isNaN(number) ? null : number;
};

function sortBy(table, column, header) {
  const down = header.getAttribute("aria-sort") === "ascending";
  const rows = [...table.tBodies[0].rows];
  const text = row => row.cells[column].textContent;
  const order = (a, b) => {
    const x = sortable(text(a)), y = sortable(text(b));
    if (x === null && y === null) return (down ? -1 : 1) * text(a).localeCompare(text(b));
    if (x === null || y === null) return x === null ? 1 : -1;  // what has no number comes last
    return (down ? -1 : 1) * (x - y);
  };
  table.tBodies[0].append(...rows.sort(order));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
}

for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    if (header.textContent && table.tBodies[0].rows.length > 1)
      buttonIn(header, () => sortBy(table, column, header));
  });
  for (const row of table.querySelectorAll("tr[data-trial]")) {
    const number = Number(row.dataset.trial);
    const button = buttonIn(row.cells[0], event => {
      event.stopPropagation();
      select(number === selected ? null : number);
    });
    button.setAttribute("aria-label", `Trial ${number}`);
    button.setAttribute("aria-pressed", "false");
    row.addEventListener("click", () => select(number === selected ? null : number));
  }
}

// -- start -----------------------------------------------------------------------------------------

const before = remembered.get();
if (before) select(Number(before));
loadPlotly().then(drawAll).catch(error => {
  console.warn("the charts stay pictures:", error);
  for (const figure of document.querySelectorAll("figure.drawn"))
    figure.classList.toggle("drawn", figure.querySelector(".main-svg") !== null);
});
if (page.refresh_s) setTimeout(() => location.reload(), 1000 * page.refresh_s);
})();
