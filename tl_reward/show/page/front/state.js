// Where the reader is. The address after # is the only place that says so: links, the back button and reloading follow from that.

let manifest;
const state = { view: null, model: "", metric: "", neuron: null, layer: null, set: "", sort: "", page: 0, ranges: Object.create(null), own: "", ownName: "", versus: "", lacking: [] };
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
  if (wanted.versus) query.set("with", wanted.versus);
  if (wanted.own) query.set("own", wanted.own);
  if (wanted.ownName) query.set("named", wanted.ownName);
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

// What an address says. What it names and the run lacks is replaced by what the run has, and said in `lacking`.
function readAddress(hash, returning) {
  const [place, text = ""] = hash.replace(/^#/, "").split("?");
  const query = new URLSearchParams(text), lacking = [];
  if (returning) for (const [key, value] of [["own", state.own], ["named", state.ownName]]) query.set(key, value);
  const names = manifest.models.map((each) => each.name), named = query.get("rm");
  const model = names.includes(named) ? named : state.model || names[0] || "";
  if (named !== null && named !== model) lacking.push(`The run has no reward model “${short(named)}”; it has ${listed(names)}.${model ? ` This is ${model}.` : ""}`);
  const keys = model ? columnsOf(model).map((each) => each.key) : [], asked = query.get("metric");
  const metric = [asked, state.metric].find((key) => keys.includes(key)) ?? keys.find((key) => key.startsWith(`effect on ${model} `)) ?? keys[0] ?? "";
  if (asked !== null && asked !== metric) lacking.push(`The ${model} model has no quantity “${short(asked, 80)}”; it has ${listed(keys)}.${metric ? ` This is ${metric}.` : ""}`);
  const wanted = { view: "overview", model, metric, neuron: null, layer: null, set: "", sort: query.get("sort") ?? "", page: 0, ranges: Object.create(null), own: "", ownName: "", versus: "", lacking };
  readPlace(place, wanted);
  readOwn(query, wanted);
  readTable(query, wanted);
  const versus = query.get("with") ?? "";
  if (versus && !names.includes(versus)) lacking.push(`The run has no reward model “${short(versus)}” to compare with; it has ${listed(names)}.`);
  else if (versus !== model) wanted.versus = versus;
  return wanted;
}

const listed = (names) => (names.length ? names.slice(0, 8).map((each) => short(each, 60)).join(", ") + (names.length > 8 ? ` and ${names.length - 8} more` : "") : "none");
const extent = ({ layers, width }) => `its layers are 0 to ${layers - 1}, its neurons 0 to ${width - 1}`;

function readPlace(place, wanted) {
  const neuron = /^L(\d+)N(\d+)$/.exec(place), shape = wanted.model && shapeOf(wanted.model);
  if (neuron && shape && inShape([+neuron[1], +neuron[2]], shape)) {
    wanted.view = "neuron";
    wanted.neuron = [+neuron[1], +neuron[2]];
  } else if (neuron) wanted.lacking.push(shape ? `The ${wanted.model} model has no neuron ${+neuron[1]}.${+neuron[2]}: ${extent(shape)}. This is the overview.` : `The run has no neurons, so none is ${+neuron[1]}.${+neuron[2]}.`);
  else if (place === "live" && manifest.live) wanted.view = "live";
  else if (place === "live") wanted.lacking.push("The live view needs a model beside the page (tl-reward serve RUN). This is the overview.");
  else if (place && place !== "overview" && !sectionOf(`#${place}`)) wanted.lacking.push(`This page has no place “${short(place)}”: it has overview, and neurons such as L3N17. This is the overview.`);
}

function readOwn(query, wanted) {
  const own = query.get("own") ?? "", places = ownPlaces(own);
  wanted.ownName = (query.get("named") ?? "").slice(0, MOST_OWN_NAME);
  if (places === null) wanted.lacking.push(`The set of neurons in the link cannot be read${own.length > MOST_OWN ? `: it has more than ${count(MOST_OWN)} characters` : ""}. It is left out.`);
  else wanted.own = ownText(places);
  const shape = wanted.model && shapeOf(wanted.model), outside = shape ? (places ?? []).filter((each) => !inShape(each, shape)) : [];
  if (outside.length) wanted.lacking.push(`The ${wanted.model} model lacks ${count(outside.length)} of the link's own neurons, such as ${nameOf(outside[0])}: ${extent(shape)}.`);
}

function readTable(query, wanted) {
  const { model, lacking } = wanted, shape = model && shapeOf(model), keys = model ? columnsOf(model).map((each) => each.key) : [];
  const layer = query.get("layer"), set = query.get("set") ?? "", sort = wanted.sort.replace(/^[+-]/, "");
  if (layer !== null && shape && /^\d+$/.test(layer) && +layer < shape.layers) wanted.layer = +layer;
  else if (layer !== null && shape) lacking.push(`The ${model} model has no layer ${short(layer)}: ${extent(shape)}. The table shows all layers.`);
  if (model && (set === "own" ? wanted.own : setsOfRun(model).some((each) => each.key === set))) wanted.set = set;
  else if (set && model) lacking.push(`The set of neurons that the link shows is none of the ${model} model's. The table shows all neurons.`);
  if (sort && sort !== "layer" && !keys.includes(sort)) lacking.push(`The table cannot be sorted by “${short(sort, 80)}”, which the ${model} model does not have.`);
  wanted.page = Math.max(0, parseInt(query.get("page") ?? "0", 10) || 0);
  for (const range of query.getAll("range")) {
    const cut = range.lastIndexOf("|");
    if (cut <= 0) continue;
    const key = range.slice(0, cut), limits = range.slice(cut + 1);
    wanted.ranges[key] = limits;
    if (!keys.includes(key)) lacking.push(`The table cannot be filtered by “${short(key, 80)}”, which the ${model} model does not have.`);
    else if (!parseRange(limits)) lacking.push(`“${short(limits)}” is no filter of ${key}: write > 0.1, < -2 or -1..1.`);
  }
}

// In sight wherever the page is scrolled to, so that nobody takes one thing for another.
function showLacking() {
  const box = document.getElementById("lacking") ?? element("div", { id: "lacking", role: "status" });
  box.replaceChildren(...state.lacking.map((each) => element("p", {}, each)), element("button", { type: "button", onclick: () => (box.hidden = true) }, "Close"));
  box.hidden = !state.lacking.length;
  document.getElementById("failed").before(box);
}
subscribe(["lacking"], showLacking);

// A change of place is a step that the back button takes back; `quiet` changes, such as typing a filter, are none.
function go(changes, { quiet = false } = {}) {
  const address = addressOf({ ...state, ...changes });
  if (address === location.hash) return;
  if (quiet) {
    history.replaceState({ seen: true }, "", address);
    follow();
  } else location.hash = address;
}

const linkTo = (neuron, model = state.model) => addressOf({ ...state, view: "neuron", neuron, model });

// Where the reader comes back to a place of before (the back button), the set of neurons is the one of now.
function follow(event) {
  const returning = event?.type === "hashchange" && Boolean(history.state?.seen);
  document.getElementById("failed").hidden = true;
  document.getElementById("search-help").textContent = usualHelp;
  const wanted = readAddress(location.hash, returning);
  const changed = Object.keys(wanted).filter((key) => JSON.stringify(wanted[key]) !== JSON.stringify(state[key]));
  Object.assign(state, wanted);
  const address = !location.hash || sectionOf(location.hash) ? location.hash : addressOf(state); // without what it named and the run lacks, which is said on the page
  if (address !== location.hash || !history.state?.seen) history.replaceState({ seen: true }, "", address || location.href);
  for (const { keys, redraw } of subscribers) if (keys.some((key) => changed.includes(key))) redraw(changed);
}

function say(text) {
  document.getElementById("said").textContent = text;
}
