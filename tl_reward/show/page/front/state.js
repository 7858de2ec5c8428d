// Where the reader is. The address after # is the only place that says so: links, the back button and reloading follow from that.

let manifest;
const state = { view: null, model: "", metric: "", neuron: null, layer: null, set: "", sort: "", page: 0, ranges: Object.create(null) };
const usualHelp = document.getElementById("search-help").textContent;
const subscribers = [];
const subscribe = (keys, redraw) => subscribers.push({ keys, redraw });

const shapeOf = (model) => manifest.models.find((each) => each.name === model);
const columnsOf = (model) => manifest.columns.filter((each) => each.model === model);
const columnEntry = (model, key) => manifest.columns.find((each) => each.model === model && each.key === key);
const sameShape = (model) => {
  const shape = shapeOf(model);
  return manifest.models.filter((each) => each.layers === shape.layers && each.width === shape.width).map((each) => each.name);
};
const indexOf = ([layer, neuron], model) => layer * shapeOf(model).width + neuron;
const placeOf = (index, model) => [Math.floor(index / shapeOf(model).width), index % shapeOf(model).width];
// A neuron's name, layer.neuron or as in links: [layer, neuron], or null.
const parseName = (text) => {
  const found = /^\s*(?:L\s*)?(\d+)\s*[.N:\s]\s*(\d+)\s*$/i.exec(text);
  return found && [+found[1], +found[2]];
};
const nameOf = ([layer, neuron]) => `${layer}.${neuron}`;

function addressOf(wanted) {
  const place = wanted.view === "neuron" ? `L${wanted.neuron[0]}N${wanted.neuron[1]}` : wanted.view;
  const query = new URLSearchParams();
  if (wanted.model) query.set("rm", wanted.model);
  if (wanted.metric) query.set("metric", wanted.metric);
  if (wanted.view === "overview") {
    if (wanted.layer !== null) query.set("layer", wanted.layer);
    if (wanted.set) query.set("set", wanted.set);
    if (wanted.sort) query.set("sort", wanted.sort);
    if (wanted.page) query.set("page", wanted.page);
    for (const [key, range] of Object.entries(wanted.ranges)) query.append("range", `${key}|${range}`);
  }
  const text = query.toString();
  return `#${place}${text ? `?${text}` : ""}`;
}

// What an address says. What it names and the run lacks is replaced by what the run has.
function readAddress(hash) {
  const [place, text = ""] = hash.replace(/^#/, "").split("?");
  const query = new URLSearchParams(text);
  const names = manifest.models.map((each) => each.name);
  const model = names.includes(query.get("rm")) ? query.get("rm") : state.model || names[0] || "";
  const keys = model ? columnsOf(model).map((each) => each.key) : [];
  const metric = [query.get("metric"), state.metric].find((key) => keys.includes(key)) ?? keys.find((key) => key.startsWith(`effect on ${model} `)) ?? keys[0] ?? "";
  const wanted = { view: "overview", model, metric, neuron: null, layer: null, set: "", sort: "", page: 0, ranges: Object.create(null) };
  const neuron = /^L(\d+)N(\d+)$/.exec(place);
  const shape = model && shapeOf(model);
  if (neuron && shape && +neuron[1] < shape.layers && +neuron[2] < shape.width) {
    wanted.view = "neuron";
    wanted.neuron = [+neuron[1], +neuron[2]];
  } else if (place === "live" && manifest.live) wanted.view = "live";
  const layer = query.get("layer");
  if (layer !== null && shape && /^\d+$/.test(layer) && +layer < shape.layers) wanted.layer = +layer;
  const set = query.get("set") ?? "";
  wanted.set = model && setsOf(model).some((each) => each.key === set) ? set : "";
  wanted.sort = query.get("sort") ?? "";
  wanted.page = Math.max(0, parseInt(query.get("page") ?? "0", 10) || 0);
  for (const range of query.getAll("range")) {
    const cut = range.lastIndexOf("|");
    if (cut > 0) wanted.ranges[range.slice(0, cut)] = range.slice(cut + 1);
  }
  return wanted;
}

// A change of place is a step that the back button takes back; `quiet` changes, such as typing a filter, are none.
function go(changes, { quiet = false } = {}) {
  const address = addressOf({ ...state, ...changes });
  if (address === location.hash) return;
  if (quiet) {
    history.replaceState(null, "", address);
    follow();
  } else location.hash = address;
}

const linkTo = (neuron, model = state.model) => addressOf({ ...state, view: "neuron", neuron, model });

function follow() {
  document.getElementById("failed").hidden = true;
  document.getElementById("search-help").textContent = usualHelp;
  const wanted = readAddress(location.hash);
  const changed = Object.keys(wanted).filter((key) => JSON.stringify(wanted[key]) !== JSON.stringify(state[key]));
  Object.assign(state, wanted);
  if (location.hash && addressOf(state) !== location.hash) history.replaceState(null, "", addressOf(state)); // what it named and the run lacks
  for (const { keys, redraw } of subscribers) if (keys.some((key) => changed.includes(key))) redraw(changed);
}

function say(text) {
  document.getElementById("said").textContent = text;
}
