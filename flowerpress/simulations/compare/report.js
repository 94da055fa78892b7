"use strict";
// Draws the report from the JSON beside it. Texts go in as text alone, whatever they hold.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31"];
const DASHES = ["solid", "dash", "dot", "dashdot"];

function make(tag, text, parent) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

function options(select, pairs) {
  for (const [value, text] of pairs) make("option", text, select).value = value;
}

const color = (place) => COLORS[place % COLORS.length];
const dash = (place) => DASHES[Math.floor(place / COLORS.length) % DASHES.length];
const faded = (hex) => hex + "26"; // 15 % opaque

// Plotly reads tags in names; here they are meant as they are.
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function traces(metric, axis) {
  const logx = at("logx").checked, found = [];
  data.curves.forEach((method, place) => {
    const line = method.metrics[metric];
    if (!line) return;
    // Nothing was sent before the first round, which a log axis cannot show.
    const shown = line.x[axis].map((_, i) => i).filter((i) => !logx || line.x[axis][i] > 0);
    const pick = (values) => shown.map((i) => values[i]);
    const x = pick(line.x[axis]), common = {legendgroup: method.label, mode: "lines"};
    if (at("spread").checked && method.seeds > 1) {
      const edge = {...common, x, line: {width: 0}, hoverinfo: "skip", showlegend: false};
      found.push({...edge, y: pick(line.low)});
      found.push({...edge, y: pick(line.high), fill: "tonexty", fillcolor: faded(color(place))});
    }
    const figure = metric === "accuracy" ? "%{y:.2%}" : "%{y:.5~g}";
    found.push({
      ...common, x, y: pick(line.mean), name: plain(method.label),
      line: {color: color(place), dash: dash(place), width: 2},
      hovertemplate: `<b>${plain(method.label)}</b><br>${plain(metric)} ${figure}<br>` +
        `${data.axes[axis]}: %{x:.4~s}<extra></extra>`,
    });
  });
  return found;
}

function draw() {
  const metric = at("metric").value, axis = at("axis").value;
  const goals = data.targets.filter((goal) => goal.metric === metric);
  const logy = at("logy").checked;
  Plotly.react(at("chart"), traces(metric, axis), {
    margin: {t: 20, r: 20},
    hovermode: "closest",
    legend: {orientation: "h", y: -0.18},
    xaxis: {title: {text: data.axes[axis]}, type: at("logx").checked ? "log" : "linear", exponentformat: "SI"},
    yaxis: {
      title: {text: plain(metric)}, type: logy ? "log" : "linear",
      tickformat: metric === "accuracy" && !logy ? ".0%" : undefined, exponentformat: "power",
    },
    shapes: goals.map((goal) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: goal.value, y1: goal.value,
      line: {color: "#888", dash: "dot", width: 1},
    })),
  }, {responsive: true, displaylogo: false, toImageButtonOptions: {format: "svg", filename: data.title}});
}

function cell(row, column, place) {
  const value = row[column.key], td = make("td");
  if (column.key === "label") {
    const found = data.curves.findIndex((method) => method.label === value.text);
    if (found >= 0) make("span", "", td).style.background = color(found);
    if (found >= 0) td.firstChild.className = "swatch";
  }
  td.append(value.text);
  if (column.text) td.className = "text";
  return td;
}

function fill(rows) {
  const body = at("table").tBodies[0];
  body.replaceChildren(...rows.map((row) => {
    const tr = make("tr");
    tr.append(...data.columns.map((column) => cell(row, column)));
    return tr;
  }));
}

function compared(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b));
}

// What has no figure stays at the end, whichever way it is sorted.
function sorted(key, sign) {
  return [...data.rows].sort((a, b) => {
    const [x, y] = [a[key].sort, b[key].sort];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * compared(x, y);
  });
}

function heads() {
  const row = at("table").tHead.rows[0];
  for (const column of data.columns) {
    const head = make("th", undefined, row), button = make("button", column.head, head);
    button.type = "button";
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of row.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      fill(sorted(column.key, up ? 1 : -1));
    });
  }
}

function tuning() {
  if (!data.tuning.length) return;
  make("h2", "Step sizes", at("tuning"));
  make("p", data.tuned_on, at("tuning")).className = "soft";
  const body = make("table", undefined, at("tuning"));
  for (const method of data.tuning) {
    const row = make("tr", undefined, body);
    make("td", method.label, row);
    for (const [lr, score, chosen] of method.scores) {
      const td = make("td", `${lr}: ${score}`, row);
      if (chosen) td.style.fontWeight = "600";
    }
  }
}

document.title = at("title").textContent = data.title;
at("subtitle").textContent = data.subtitle;
at("settings").textContent = data.settings;
at("table").caption.textContent = data.caption;
options(at("metric"), data.metrics.map((name) => [name, name]));
options(at("axis"), Object.entries(data.axes));
at("metric").value = data.metric;
at("axis").value = "up";
at("logx").checked = true;
at("logy").checked = data.logy;
for (const id of ["metric", "axis", "logx", "logy", "spread"]) at(id).addEventListener("change", draw);
heads();
fill(data.rows);
tuning();
draw();
