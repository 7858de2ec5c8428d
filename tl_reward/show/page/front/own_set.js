// A set of neurons of the reader's own: ticked in the table or typed, and named. The address holds it, so that a link does.

const MOST_OWN = 6000; // characters of an address that neurons may take: programs that pass links on cut longer ones
const MOST_OWN_NAME = 60;
const MOST_OWN_LINKS = 60;

// In an address, layer by layer: 3.7-21_12.345. Its characters are not escaped there.
function ownText(places) {
  const layers = new Map();
  for (const [layer, neuron] of places) layers.set(layer, (layers.get(layer) ?? new Set()).add(neuron));
  const up = (a, b) => a - b;
  return [...layers.keys()].sort(up).map((layer) => `${layer}.${[...layers.get(layer)].sort(up).join("-")}`).join("_");
}

// The neurons of such a text; null where it is none.
const ownPlaces = (text) => once(`own ${text}`, () => {
  if (!text) return [];
  if (text.length > MOST_OWN || !/^\d{1,6}\.\d{1,9}(-\d{1,9})*(_\d{1,6}\.\d{1,9}(-\d{1,9})*)*$/.test(text)) return null;
  return text.split("_").flatMap((part) => {
    const [layer, neurons] = part.split(".");
    return neurons.split("-").map((neuron) => [+layer, +neuron]);
  });
});

const numbered = (number) => `${count(number)} ${number === 1 ? "neuron" : "neurons"}`;
const inShape = ([layer, neuron], { layers, width }) => layer < layers && neuron < width;
const ownIndices = (model) => ownPlaces(state.own).filter((place) => inShape(place, shapeOf(model))).map((place) => indexOf(place, model));
const ownName = () => state.ownName || "my set";
const isOwn = ([layer, neuron]) => ownPlaces(state.own).some((each) => each[0] === layer && each[1] === neuron);

// As one of the sets that the table can show.
function ownSet(model) {
  if (!state.own) return [];
  const inside = new Set(ownIndices(model));
  return [{ key: "own", label: `${ownName()} (your own), ${count(inside.size)}`, has: (i) => inside.has(i) }];
}

// Puts neurons into the set, or takes them out. Says why not where an address could not hold them.
function changeOwn(places, inside) {
  const changed = new Set(places.map(nameOf));
  const kept = ownPlaces(state.own).filter((place) => !changed.has(nameOf(place)));
  const text = ownText(inside ? [...kept, ...places] : kept);
  if (text.length > MOST_OWN) {
    tellOwn(`Not added: a link would be too long. Neurons may take ${count(MOST_OWN)} characters of it (about ${count(MOST_OWN / 5)} neurons), and these take ${count(text.length)}. Make two sets.`, true);
    return false;
  }
  go({ own: text, ...(text || state.set !== "own" ? {} : { set: "" }) }, { quiet: true });
  return true;
}

// Links that were drawn before lead on with the set, and the model beside, as they are now.
function renewLinks() {
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    const [place, text = ""] = link.getAttribute("href").slice(1).split("?"), query = new URLSearchParams(text);
    if (!/^(overview|live|L\d+N\d+)$/.test(place)) continue;
    for (const [key, value] of [["with", state.versus], ["own", state.own], ["named", state.ownName]]) {
      if (value) query.set(key, value);
      else query.delete(key);
    }
    link.setAttribute("href", `#${place}${String(query) ? `?${query}` : ""}`);
  }
}
subscribe(["versus", "own", "ownName"], renewLinks);

function tellOwn(text, wrong = false) {
  const status = document.getElementById("own-status");
  status.textContent = text;
  status.classList.toggle("wrong", wrong);
  document.getElementById("own-add").setAttribute("aria-invalid", wrong);
}

function addTyped(box) {
  const shape = shapeOf(state.model), names = box.value.split(/[\s,;]+/).filter(Boolean);
  const wrong = names.find((name) => !parseName(name) || !inShape(parseName(name), shape));
  if (wrong !== undefined) tellOwn(`No such neuron: ${short(wrong)}. Layers are 0 to ${shape.layers - 1}, neurons 0 to ${shape.width - 1}, written layer.neuron.`, true);
  else if (names.length && changeOwn(names.map(parseName), true)) box.value = "";
}

function ownPanel() {
  const add = element("input", { id: "own-add", type: "text", placeholder: "12.345, 3.7", autocomplete: "off", spellcheck: "false", onkeydown: (event) => event.key === "Enter" && addTyped(add) });
  const name = element("input", { id: "own-name", type: "text", maxlength: MOST_OWN_NAME, placeholder: "my set", autocomplete: "off", oninput: () => go({ ownName: name.value.trim() }, { quiet: true }) });
  const button = (id, text, onclick) => element("button", { type: "button", id, onclick }, text);
  const withSet = [
    manifest.columns.length ? button("own-show", "Show in the table", () => showInTable({ set: "own", layer: null, ranges: {} })) : null,
    button("own-json", "Save as JSON", () => saveAs(fileOfOwn("json"), "application/json", `${JSON.stringify(ownJson())}\n`)),
    button("own-csv", "Save as CSV", () => exportCsv(ownIndices(state.model), fileOfOwn("csv"))),
  ];
  let emptied = "";
  const empty = button("own-empty", "Empty the set", () => {
    const back = emptied;
    emptied = state.own;
    go({ own: state.own ? "" : back, ...(state.set === "own" ? { set: "" } : {}) }, { quiet: true });
  });
  const status = element("p", { id: "own-status", role: "status" }), list = element("p", { id: "own-list" }), command = element("p", { class: "hint" });
  const section = element("section", { id: "section-own" }, element("h2", {}, "A set of your own"),
    element("p", {}, `${manifest.columns.length ? "Tick neurons in the table, or type them. Circles mark them on the map." : "Type neurons."} The address of this page holds the set: a link shows it to others.`),
    element("div", { class: "pager" }, element("label", { class: "row" }, "Neurons", add), button("own-put", "Add", () => addTyped(add)), element("label", { class: "row" }, "Name", name)),
    status, list, element("div", { class: "pager" }, ...withSet, empty), command);
  subscribe(["own", "ownName", "model"], () => {
    section.hidden = !state.model;
    if (!state.model) return;
    const indices = ownIndices(state.model), all = ownPlaces(state.own).length;
    tellOwn(all ? `${ownName()}: ${numbered(indices.length)} of the ${state.model} model${all > indices.length ? `, and ${count(all - indices.length)} that it does not have` : ""}.` : "No neuron is in it yet.");
    list.replaceChildren(...indices.slice(0, MOST_OWN_LINKS).flatMap((i) => [element("a", { href: linkTo(placeOf(i, state.model)) }, nameOf(placeOf(i, state.model))), " "]));
    if (indices.length > MOST_OWN_LINKS) list.append(`and ${count(indices.length - MOST_OWN_LINKS)} more, in the table`);
    for (const each of withSet.filter(Boolean)) each.disabled = !indices.length;
    empty.disabled = !all && !emptied;
    empty.textContent = all || !emptied ? "Empty the set" : `Put the ${numbered(ownPlaces(emptied).length)} back`;
    command.hidden = !indices.length;
    command.replaceChildren("What they do together and each alone, with the file of JSON: ", element("code", {}, `tl-reward effects ${shapeOf(state.model).command} --neurons ${fileOfOwn("json")} --out runs/own-set`), "; examples, ablate and patch take it too.");
    if (document.activeElement !== name) name.value = state.ownName;
    for (const each of document.querySelectorAll("[data-own]")) showOwn(each);
  });
  return section;
}

// What `--neurons FILE` reads.
const ownJson = () => {
  const { layers, width } = shapeOf(state.model);
  return { name: ownName(), model: state.model, shape: [layers, width], neurons: ownIndices(state.model).map((i) => placeOf(i, state.model)) };
};
const fileOfOwn = (ending) => `${ownName().normalize("NFKD").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[-.]+|-+$/g, "") || "my-set"}.${ending}`;

function saveAs(name, type, text) {
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(`Saved ${name}.`);
}

// What says of one neuron whether it is in the set, and changes that: a tick in the table, a button on the neuron's page.
const ownTick = (place) => showOwn(element("input", { type: "checkbox", "aria-label": `${nameOf(place)} in your set`, "data-own": nameOf(place), onchange: (event) => {
  if (!changeOwn([place], event.target.checked)) showOwn(event.target);
} }));
const ownButton = (place) => showOwn(element("button", { type: "button", "data-own": nameOf(place), onclick: () => changeOwn([place], !isOwn(place)) }));
function showOwn(each) {
  const inside = isOwn(parseName(each.dataset.own));
  if (each.type === "checkbox") each.checked = inside;
  else each.textContent = inside ? "Take out of your set" : "Put into your set";
  return each;
}
