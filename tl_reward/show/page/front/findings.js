// What was found, in sentences, before any plot: each with the rule behind it, and with links to what it rests on.

function findingsPanel() {
  const { about, models, guide, findings } = manifest.found;
  const items = findings.map((each) => element("li", {},
    element("p", {}, each.sentence),
    element("div", { class: "behind" }, ...each.links.map(linkOf), element("details", {}, element("summary", {}, "How is this decided?"), element("p", {}, each.rule))),
  ));
  return element("section", { id: "section-findings" },
    element("h2", {}, "What was found"), element("p", {}, about), element("ul", { class: "models" }, ...models.map((each) => element("li", {}, each))), element("p", {}, guide), element("ol", { class: "findings" }, ...items));
}

// A neuron has an address; everything else is a place on this page, where the map, the table or the model may have to change first.
function linkOf({ label, model, metric, neuron, set, place, panel }) {
  if (neuron) return element("a", { href: addressOf({ ...state, view: "neuron", neuron, model, metric: state.metric }) }, label);
  return element("button", { type: "button", onclick: () => {
    const wanted = { view: "overview", ...(model && { model }), ...(metric && { metric }), ...(set && { set, model: modelOfSet(set), layer: null, ranges: {}, page: 0 }) };
    if (addressOf({ ...state, ...wanted }) !== addressOf(state)) {
      go(wanted);
      follow();
    }
    const section = place ? document.getElementById(`section-${place}`) : plotOf(panel)?.closest("section");
    if (section) reveal(section);
    say(section ? section.querySelector("h2").textContent : "This page does not show it");
  } }, label);
}

const plotOf = (title) => [...document.querySelectorAll("#overview .plot")].find((box) => box.getAttribute("aria-label") === title);
const modelOfSet = (set) => modelOf(manifest.overlaps[Number(set.split(":")[1])]);
