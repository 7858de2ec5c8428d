// Elements and figures. Text of the run becomes text of the page, and never markup: not in elements, and not in plotly's labels. This file
// alone calls plotly.

const CONFIG = { responsive: true, displaylogo: false, showSendToCloud: false };
const COLORS = { helpful: "#0072B2", harmless: "#D55E00", mixed: "#009E73" };
const DARK_COLORS = { helpful: "#56B4E9", harmless: "#E69F00", mixed: "#2CC295" };
const SPARE = ["#CC79A7", "#56B4E9", "#E69F00", "#999999"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const SYMBOLS = ["circle", "square", "diamond", "cross", "x", "triangle-up"];

const isDark = () => document.documentElement.dataset.theme === "dark";
const theme = () =>
  isDark()
    ? { text: "#e9e9e9", grid: "#343a42", guide: "#a9aeb5", middle: "#22262c", positive: "#4EA3F1", negative: "#F0695A", faint: "#6b7178" }
    : { text: "#1a1a1a", grid: "#e3e3e3", guide: "#555555", middle: "#FFFFFF", positive: "#2166AC", negative: "#B2182B", faint: "#AAAAAA" };
const divergent = () => [[0, theme().negative], [0.5, theme().middle], [1, theme().positive]];
const colorOf = (name, index) => (Object.hasOwn(COLORS, name) ? (isDark() ? DARK_COLORS : COLORS)[name] : SPARE[Math.max(0, index) % SPARE.length]);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// plotly reads some tags and entities in its labels, templates after %, and looks for MathJax where $ are. So every string of a figure is
// escaped, but for what this page's own code writes as markup`…`: there, what is put in is escaped.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("$", "&#36;").replaceAll("%{", "&#37;{");
class Markup {
  constructor(text) {
    this.text = text;
  }
}
const markup = (parts, ...values) => new Markup(parts.map((part, i) => part + (i < values.length ? plain(values[i]) : "")).join(""));
function escaped(value) {
  if (typeof value === "string") return plain(value) + (value in Object.prototype ? "\u2060" : ""); // plotly has groups as keys of objects
  if (value instanceof Markup) return value.text;
  if (Array.isArray(value)) return value.map(escaped);
  return value && Object.getPrototypeOf(value) === Object.prototype ? Object.fromEntries(Object.entries(value).map(([key, each]) => [key, escaped(each)])) : value;
}
const short = (text, most = 40) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const count = (number) => number.toLocaleString("en-US");

const noNumber = (value) => value === null || value === undefined || Number.isNaN(value);

// Three significant digits.
function figure(value) {
  if (noNumber(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return (size >= 1e-4 && size < 1e6 ? Number(value.toPrecision(3)).toString() : value.toExponential(2)).replace("-", "−");
}

const drawn = new Map();

const plot = (box, traces, layout = {}) => plotEscaped(box, escaped(traces), escaped(layout));
const replot = (box, changes, traces) => Plotly.restyle(box, escaped(changes), traces);
const unplot = (box) => Plotly.purge(box);

// On a small screen the data get the room: a scale of colours lies above them, and long names of rows stand inside, each above its row.
// A figure with too many parts for that scrolls.
const NARROW = 560;
const fitted = (holder, narrow) => (holder?.colorbar ? { ...holder, colorbar: { ...holder.colorbar, title: { ...holder.colorbar.title, font: { size: narrow ? 11 : 13 } }, ...(narrow ? LYING : {}) } } : holder);
const LYING = { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", len: 1, thickness: 10 };
const inTwo = (text) => (text.length > 18 && !text.includes("<") ? text.replace(/^(.{8,18}) /, "$1<br>") : text);
function narrowLayout(layout, axes) {
  const small = { ...layout, font: { ...layout.font, size: 11 }, margin: { ...layout.margin, l: Math.min(layout.margin.l, 48), r: Math.min(layout.margin.r, 12) } };
  small.annotations = (layout.annotations ?? []).map((each) => (each.yref === "paper" && each.y >= 1 ? { ...each, font: { ...each.font, size: 10 }, text: inTwo(each.text) } : each));
  for (const axis of axes) {
    const { title, ticktext, tickvals, range } = layout[axis];
    small[axis] = { ...layout[axis] };
    if (title) small[axis].title = { ...title, font: { ...title.font, size: 11 } };
    if (!axis.startsWith("y") || !range || !ticktext?.some((text) => text.length > 20)) continue;
    const top = range[1] + 0.4 * Math.sign(range[1] - range[0]);
    Object.assign(small[axis], { showticklabels: false, automargin: false, range: [range[0], top] });
    small.margin.l = 12;
    small.annotations.push(...ticktext.map((text, i) => ({ text, x: 0, xref: "paper", xanchor: "left", y: tickvals[i], yref: axis.replace("axis", ""), yanchor: "bottom", yshift: 2, showarrow: false, font: { size: 10 } })));
  }
  return small;
}

// A figure that was escaped already, as those of the run's panels were when the page was written.
async function plotEscaped(box, traces, layout) {
  const colors = theme();
  const whole = structuredClone(layout);
  const own = {
    margin: { l: 70, r: 20, t: 30, b: 60 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    font: { family: "system-ui, sans-serif", size: 13, color: colors.text }, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    colorway: [COLORS.helpful, COLORS.harmless, COLORS.mixed, ...SPARE], barcornerradius: 0,
  };
  for (const [key, value] of Object.entries(own)) whole[key] = value && typeof value === "object" && !Array.isArray(value) ? { ...value, ...whole[key] } : whole[key] ?? value;
  const axes = new Set(["xaxis", "yaxis", ...Object.keys(whole).filter((key) => /^[xy]axis\d*$/.test(key))]);
  for (const axis of axes) {
    whole[axis] = { gridcolor: colors.grid, zerolinecolor: colors.guide, linecolor: colors.grid, automargin: true, ...whole[axis] };
    if (whole[axis].title) whole[axis].title = { font: { size: 13 }, ...(typeof whole[axis].title === "string" ? { text: whole[axis].title } : whole[axis].title) };
  }
  for (const each of whole.annotations ?? []) if (each.font?.size > 13) each.font.size = 13; // titles of plots side by side
  box.classList.toggle("crowded", [...axes].filter((axis) => axis.startsWith("x")).length > 3 || whole.legend.orientation === "v");
  const narrow = box.clientWidth < NARROW;
  if (whole.coloraxis) whole.coloraxis = fitted(whole.coloraxis, narrow);
  await Plotly.react(box, traces.map((trace) => fitted(trace, narrow)), narrow ? narrowLayout(whole, axes) : whole, CONFIG);
  box.dataset.drawn = "yes";
}

// Draws when the reader comes near, and again when something changes that it depends on.
function whenVisible(box, draw) {
  const entry = { draw, near: false, stale: true };
  drawn.set(box, entry);
  const watch = new IntersectionObserver((seen) => {
    entry.near = seen.some((each) => each.isIntersecting);
    if (entry.near && entry.stale) refresh(box);
  }, { rootMargin: "300px" });
  watch.observe(box);
}

async function refresh(box) {
  const entry = drawn.get(box);
  if (!entry) return; // of a neuron whose page the reader has left
  entry.stale = !entry.near;
  if (!entry.near) return;
  try {
    await entry.draw(box);
  } catch (error) {
    failed(error);
  }
}

// `far`: also what the reader has not come near.
const redrawAll = ({ far = false } = {}) =>
  drawn.forEach((entry, box) => {
    const { near } = entry;
    entry.near ||= far && box.checkVisibility();
    refresh(box);
    entry.near = near;
  });

// A caption of at most two lines, and below it, in a row with a plot's controls, what not every reader needs. `describe` fills both.
function captioned(caption, notes = [], controls = []) {
  const text = element("p", { class: "caption" });
  const tools = element("div", { class: "tools" }, element("details", { class: "how" }, element("summary", {}, "How to read this")), ...controls);
  const parts = element("div", { class: "told" }, text, tools);
  describe(text, caption, notes);
  return { text, parts };
}

function describe(text, caption, notes = []) {
  const how = text.nextElementSibling.firstChild;
  text.textContent = caption;
  how.hidden = !notes.some(Boolean);
  how.replaceChildren(how.firstChild, ...notes.filter(Boolean).map((each) => element("p", {}, each)));
}

function panel(title, caption, { id = null, height = 420, notes = [], controls = [] } = {}) {
  const box = element("div", { class: "plot", id: id === null ? null : `plot-${id}`, style: `height:${height}px`, role: "group", "aria-label": title });
  const { text, parts } = captioned(caption, notes, controls);
  const section = element("section", { id: id === null ? null : `section-${id}` }, heading(title), parts, element("div", { class: "wide" }, box));
  return { section, box, text };
}

function failed(error) {
  const box = document.getElementById("failed");
  box.hidden = false;
  box.textContent = `This page could not be drawn: ${error.message}`;
  console.error(error);
}
