// Every neuron of the model in rows: the plots in words, and the way in from the keyboard.

const ROWS = 25;
let tableRun = 0;

function tablePanel() {
  const { parts: told } = captioned("Every neuron of the reward model, and what the run says of it. Sort by a heading; filter a column by > 0.1, < -2 or -1..1.",
    ["Numbers are kept to three digits. Effects with a standard error have their interval on the neuron's own page."]);
  const set = element("select", { id: "table-set", onchange: () => go({ set: set.value, page: 0 }) });
  const layer = element("input", { id: "table-layer", type: "number", min: 0, step: 1, placeholder: "all", oninput: () => {
    const value = layer.value === "" ? null : Number(layer.value);
    if (value === null || (Number.isInteger(value) && value >= 0 && value < shapeOf(state.model).layers)) go({ layer: value, page: 0 }, { quiet: true });
  } });
  const controls = element("div", { class: "pager" },
    element("label", { class: "row" }, "Set", set), element("label", { class: "row" }, "Layer", layer),
    element("button", { type: "button", id: "table-clear", onclick: () => go({ set: "", layer: null, ranges: {}, page: 0 }) }, "Clear filters"),
    element("button", { type: "button", id: "table-csv", onclick: () => tableIndices().then((found) => exportCsv(found, "neurons.csv")).catch(failed) }, "Save as CSV"),
  );
  const status = element("p", { id: "table-status" });
  const table = element("table", { id: "table" }, element("thead"), element("tbody"));
  // From the page that is drawn: a link may name one that the table does not have.
  const step = (by) => go({ page: Math.max(0, Number(table.dataset.page ?? 0) + by) }, { quiet: true });
  table.addEventListener("keydown", (event) => {
    const links = [...table.querySelectorAll("tbody a")], at = links.indexOf(document.activeElement);
    const next = at < 0 ? undefined : links[at + { ArrowDown: 1, ArrowUp: -1 }[event.key]];
    if (next) { event.preventDefault(); next.focus(); }
  });
  const pager = element("div", { class: "pager" },
    element("button", { type: "button", id: "table-back", onclick: () => step(-1) }, "Previous page"),
    element("button", { type: "button", id: "table-on", onclick: () => step(1) }, "Next page"),
  );
  const section = element("section", { id: "section-table" }, element("h2", {}, "Table of neurons"), told, controls, status, element("div", { class: "wide" }, table), pager);
  const draw = (changed) => {
    section.hidden = !state.metric;
    if (state.view !== "overview" || !state.metric) return;
    if (changed.includes("model") || !table.tHead.rows.length) drawHead(table);
    if (["view", "model", "own", "ownName"].some((key) => changed.includes(key)) || !set.options.length) {
      set.replaceChildren(element("option", { value: "" }, "all neurons"), ...setsOf(state.model).map((each) => element("option", { value: each.key }, short(each.label, 70))));
    }
    set.value = state.set;
    if (document.activeElement !== layer) layer.value = state.layer ?? "";
    if (state.set === "own" || changed.some((key) => !["own", "ownName"].includes(key))) drawRows(table, status).catch(failed);
  };
  subscribe(["view", "model", "metric", "layer", "set", "sort", "page", "ranges", "own", "ownName"], draw);
  return section;
}

// What leads to single neurons.
const neuronPanels = () => [
  ...(manifest.models.length ? [ownPanel()] : []),
  ...(manifest.columns.length ? [tablePanel()] : []),
  ...(manifest.exact.length ? [editedPanel()] : []),
  ...(manifest.details.length ? [textsPanel()] : []),
];

const sortOf = () => {
  const [key, direction] = [state.sort.replace(/^[+-]/, ""), state.sort[0]];
  const known = key === "layer" || columnEntry(state.model, key);
  return known ? { key, descending: direction !== "+" } : { key: state.metric || "layer", descending: true };
};

function drawHead(table) {
  const columns = columnsOf(state.model);
  const heading = (key, label, title) => element("th", { scope: "col", "data-key": key, title }, element("button", { type: "button", onclick: () => {
    const now = sortOf();
    go({ sort: `${now.key === key && now.descending ? "+" : "-"}${key}`, page: 0 }, { quiet: true });
  } }, label));
  const filter = (key) => element("td", {}, element("input", { type: "text", "aria-label": `filter of ${key}`, placeholder: "filter", value: state.ranges[key] ?? "", "data-key": key, oninput: (event) => {
    const ranges = Object.assign(Object.create(null), state.ranges, { [key]: event.target.value.trim() });
    if (!ranges[key]) delete ranges[key];
    const wrong = Boolean(ranges[key]) && !parseRange(ranges[key]);
    event.target.setAttribute("aria-invalid", wrong);
    if (!wrong) go({ ranges, page: 0 }, { quiet: true });
  } }));
  table.tHead.replaceChildren(
    element("tr", {}, heading("layer", "neuron", "layer.neuron"), ...columns.map((each) => heading(each.key, `${each.key} (${each.unit})`, each.about))),
    element("tr", {}, element("td"), ...columns.map((each) => filter(each.key))),
  );
}

// "> 0.1", "< -2" or "-1..1" as { low, high }, or null.
function parseRange(text) {
  const number = "[-−+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:e[-+]?\\d+)?";
  const value = (part) => Number(part.replace("−", "-"));
  let found = new RegExp(`^([<>])=?\\s*(${number})$`, "i").exec(text);
  if (found) return found[1] === ">" ? { low: value(found[2]), high: Infinity } : { low: -Infinity, high: value(found[2]) };
  found = new RegExp(`^(${number})\\s*\\.\\.\\s*(${number})$`, "i").exec(text);
  return found ? { low: value(found[1]), high: value(found[2]) } : null;
}

// The neurons that pass the filters, in the table's order.
async function tableIndices() {
  const { model, layer } = state, { layers, width } = shapeOf(model);
  const set = setsOf(model).find((each) => each.key === state.set);
  const ranges = await Promise.all(
    Object.entries(state.ranges).filter(([key, text]) => columnEntry(model, key) && parseRange(text))
      .map(async ([key, text]) => ({ column: await columnOf(columnEntry(model, key)), ...parseRange(text) })),
  );
  const kept = [];
  const [from, to] = layer === null ? [0, layers * width] : [layer * width, (layer + 1) * width];
  for (let i = from; i < to; i++) {
    if (set && !set.has(i)) continue;
    if (ranges.every(({ column, low, high }) => column.at(i) >= low && column.at(i) <= high)) kept.push(i);
  }
  const { key, descending } = sortOf();
  if (key !== "layer") return sorted(await columnOf(columnEntry(model, key)), kept, descending);
  return descending ? kept.reverse() : kept;
}

async function drawRows(table, status) {
  const run = ++tableRun;
  const indices = await tableIndices();
  const columns = await Promise.all(columnsOf(state.model).map(columnOf));
  if (run !== tableRun) return;
  const now = sortOf(), pages = Math.max(1, Math.ceil(indices.length / ROWS)), page = Math.min(state.page, pages - 1);
  const rows = Array.from(indices.slice(page * ROWS, (page + 1) * ROWS), (i) => {
    const place = placeOf(i, state.model);
    return element("tr", {}, element("td", {}, ownTick(place), " ", element("a", { href: linkTo(place) }, nameOf(place))), ...columns.map((column) => element("td", {}, figure(column.at(i)))));
  });
  table.dataset.page = page;
  table.tBodies[0].replaceChildren(...rows);
  for (const head of table.tHead.querySelectorAll("th")) head.setAttribute("aria-sort", head.dataset.key === now.key ? (now.descending ? "descending" : "ascending") : "none");
  for (const box of table.tHead.querySelectorAll("input")) if (document.activeElement !== box) box.value = state.ranges[box.dataset.key] ?? "";
  document.getElementById("table-back").disabled = page === 0;
  document.getElementById("table-on").disabled = page === pages - 1;
  status.textContent = `${count(indices.length)} of ${count(shapeOf(state.model).layers * shapeOf(state.model).width)} neurons of the ${state.model} model, page ${page + 1} of ${count(pages)}, by ${now.key}, ${now.descending ? "largest" : "smallest"} first.`;
  say(status.textContent);
}

async function exportCsv(indices, name) {
  const columns = await Promise.all(columnsOf(state.model).map(columnOf));
  const quote = (text) => `"${text.replaceAll('"', '""')}"`;
  const lines = [["layer", "neuron", ...columns.map((each) => quote(`${each.key} (${each.unit})`))].join(",")];
  for (const i of indices) lines.push([...placeOf(i, state.model), ...columns.map((column) => (Number.isNaN(column.at(i)) ? "" : column.at(i).toPrecision(4)))].join(","));
  saveAs(name, "text/csv", `${lines.join("\n")}\n`);
}
