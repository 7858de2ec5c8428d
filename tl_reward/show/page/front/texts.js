// Which neurons have a text with these words among their examples?

const MOST_FOUND = 25;
const AROUND = 60; // characters of an excerpt on each side

const findable = (words) => new RegExp(words.trim().replace(/[.*+?^${}()|[\]\\/-]/g, (sign) => (sign === "-" ? "-" : `\\${sign}`)).replace(/\s+/g, "\\s+"), "giu");

// The places of words in a text: { from, to }.
const placesIn = (text, words) => Array.from(text.matchAll(findable(words)), (each) => ({ from: each.index, to: each.index + each[0].length }));

// A text around a place, which is marked.
function excerpt(text, { from, to }) {
  const before = text.slice(Math.max(0, from - AROUND), from), after = text.slice(to, to + AROUND);
  const line = (part) => part.replaceAll("\n", "⏎");
  return element("span", { dir: "auto", class: "excerpt" }, from > AROUND ? "…" : "", line(before), element("mark", {}, line(text.slice(from, Math.min(to, from + 4 * AROUND)))), line(after), to + AROUND < text.length ? "…" : "");
}

// A box on a neuron's page, that leaves those of its examples that have some words.
function exampleFilter() {
  const said = element("span", { class: "hint", role: "status" });
  const box = element("input", { type: "search", id: "example-filter", autocomplete: "off", oninput: () => {
    const examples = [...box.closest("section").querySelectorAll(".example")], words = box.value.trim();
    for (const each of examples) each.hidden = Boolean(words) && !placesIn(each.querySelector(".tokens").textContent, words).length;
    said.textContent = words ? `${examples.filter((each) => !each.hidden).length} of ${examples.length} examples have it` : "";
  } });
  return element("div", { class: "pager" }, element("label", { class: "row" }, "Only texts with", box), said);
}

function textsPanel() {
  const box = element("input", { type: "search", id: "texts-box", autocomplete: "off", placeholder: "words of a text", onkeydown: (event) => event.key === "Enter" && find().catch(failed) });
  const status = element("p", { id: "texts-status", role: "status" }), list = element("ol", { id: "texts-found", class: "missing" });
  const find = async () => {
    const words = box.value.trim(), model = state.model;
    list.replaceChildren();
    status.textContent = words ? "Searching…" : "";
    if (!words) return;
    const found = await findTexts(words, model);
    if (model !== state.model || words !== box.value.trim()) return; // somebody was faster
    status.textContent = found.said;
    list.replaceChildren(...found.rows.map((row) => element("li", {}, element("a", { href: linkTo(row.place, model) }, nameOf(row.place)), ` ${row.said}: `, excerpt(row.text, row.at))));
  };
  const section = element("section", { id: "section-texts" }, element("h2", {}, "Which neurons have these words in their examples?"),
    element("p", {}, "Searches the transcripts with each neuron's largest activations. First come neurons whose strongest token is in the words themselves."),
    element("div", { class: "pager" }, element("label", { class: "row" }, "Words", box), element("button", { type: "button", id: "texts-find", onclick: () => find().catch(failed) }, "Find")), status, list);
  subscribe(["model"], () => {
    section.hidden = !manifest.details.some((each) => each.model === state.model);
    list.replaceChildren();
    status.textContent = "";
  });
  return section;
}

// Of all examples of a model: rows for the neurons with most of them, and what was searched, in a sentence.
async function findTexts(words, model) {
  const rows = [], said = [];
  for (const about of manifest.details.filter((each) => each.model === model)) {
    const found = await jsonBlock(`examples-${about.number}`), top = await arrayBlock(`top-${about.number}`, about.bytes === 2 ? Int16Array : Int32Array);
    const texts = found.transcripts.map((each) => each.tokens.join("")), places = texts.map((text) => placesIn(text, words));
    const neurons = withText(top, about, places), peaks = withPeak(found, places, about);
    for (const i of new Set([...neurons.keys(), ...peaks.keys()])) {
      const on = peaks.get(i), number = neurons.get(i)?.texts ?? 0, which = on?.which ?? neurons.get(i).first;
      rows.push({ place: placeOf(i, model), i, on: on?.number ?? 0, number, text: texts[which], at: on?.at ?? places[which][0], said: `has it in ${number} of its top ${about.most} texts${on ? `, and peaks in it in ${on.number} of its examples` : ""}` });
    }
    const having = places.filter((each) => each.length).length;
    said.push(
      `“${short(words, 60)}” is in ${count(having)} of ${count(texts.length)} texts (${tokensOf(about)}). Of ${count(about.shape[0] * about.shape[1])} neurons searched, ${count(neurons.size)} have one of ` +
      `these among their top ${about.most} texts; of the ${count(found.neurons.length)} whose peaks are known token by token, ${count(peaks.size)} peak in the words.`);
  }
  rows.sort((a, b) => b.on - a.on || b.number - a.number || a.i - b.i);
  if (rows.length > MOST_FOUND) said.push(`The first ${MOST_FOUND} are listed.`);
  return { rows: rows.slice(0, MOST_FOUND), said: said.join(" ") };
}

// Neurons by their index: how many of their top texts have the words, and the first of these.
function withText(top, { most, shape }, places) {
  const size = shape[0] * shape[1], neurons = new Map();
  for (let j = 0; j < most; j++)
    for (let i = 0; i < size; i++) {
      const which = top[j * size + i];
      if (which < 0 || !places[which].length) continue;
      const before = neurons.get(i);
      if (before) before.texts++;
      else neurons.set(i, { texts: 1, first: which });
    }
  return neurons;
}

// Of those shown in detail, by their index: in how many of their examples the strongest token overlaps the words, and where first.
function withPeak(found, places, { shape }) {
  const ends = found.transcripts.map(({ tokens }, which) => {
    let end = 0;
    return places[which].length ? tokens.map((token) => (end += token.length)) : [];
  });
  const neurons = new Map();
  found.neurons.forEach(([layer, neuron], n) => found.shown[n].forEach((which, j) => {
    if (which < 0 || !places[which].length) return;
    const token = found.peak_at[n][j], to = ends[which][token], from = token ? ends[which][token - 1] : 0;
    const at = places[which].find((each) => each.from < to && from < each.to);
    if (!at) return;
    const i = layer * shape[1] + neuron, before = neurons.get(i);
    if (before) before.number++;
    else neurons.set(i, { number: 1, which, at });
  }));
  return neurons;
}
