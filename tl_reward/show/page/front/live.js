// A pair of one's own, and edits of neurons, sent to the model behind the page, with the token that the page's first address holds. It is
// taken out of there, so that no history, screenshot or copied link has it; the tab keeps it, to be loaded again.

const TOKEN = "tl_reward token";
const given = new URLSearchParams(location.search).get("token");
let token = given ?? "";
try { // a browser may forbid the store; then the page works, and cannot be loaded again
  if (given !== null) sessionStorage.setItem(TOKEN, given);
  else if (location.protocol !== "file:") token = sessionStorage.getItem(TOKEN) ?? "";
} catch {}
if (given !== null) history.replaceState(null, "", location.pathname + location.hash);
const tab = String(Math.random()).slice(2);
let edits = [];
let asking = null;

async function ask(path, body) {
  const answer = await fetch(path, {
    method: body ? "POST" : "GET", headers: { Authorization: `Bearer ${token}`, ...(body ? { "Content-Type": "application/json" } : {}) },
    body: body ? JSON.stringify(body) : null, signal: asking?.signal,
  });
  const found = await answer.json().catch(() => ({ error: `the server answered with status ${answer.status}` }));
  if (!answer.ok) throw new Error(found.error ?? `status ${answer.status}`);
  return found;
}

function liveView(root) {
  const text = (id, label, value) => element("label", {}, label, element("textarea", { id, dir: "auto" }, value));
  const model = element("select", { id: "live-model" });
  const neurons = element("input", { id: "live-neurons", placeholder: "such as 12.345 20.131", spellcheck: "false" });
  const kind = element("select", { id: "live-kind" },
    ...Object.entries({ zero: "set to 0", mean: "set to their mean", scale: "multiply by", patch: "take from the other response" }).map(([value, label]) => element("option", { value }, label)));
  const factor = element("input", { id: "live-factor", type: "number", step: "any", value: "0.5", "aria-label": "factor" });
  const watched = element("input", { id: "live-neuron", placeholder: "layer.neuron" });
  const list = element("ul", { id: "live-edits" });
  const status = element("p", { id: "live-status", "aria-live": "polite" });
  const results = element("div", { id: "live-results" });
  let served = [];
  const wrongNeuron = (places) => {
    if (places.some((each) => !each)) return "A neuron is written layer.neuron, such as 12.345.";
    const shape = served.find((each) => each.name === model.value);
    const outside = shape && places.find(([layer, neuron]) => layer >= shape.n_layers || neuron >= shape.d_mlp);
    return outside ? `No neuron ${nameOf(outside)}: ${model.value} has layers 0 to ${shape.n_layers - 1}, neurons 0 to ${shape.d_mlp - 1}.` : "";
  };
  const show = () => list.replaceChildren(...edits.map((edit, i) => element("li", {}, element("label", { class: "row" },
    Object.assign(element("input", { type: "checkbox", onchange: (event) => { edit.on = event.target.checked; run(); } }), { checked: edit.on }),
    `${edit.neurons.map(nameOf).join(", ")}: ${kind.querySelector(`[value=${edit.kind}]`).textContent}${edit.kind === "scale" ? ` ${edit.factor}` : ""}`),
    element("button", { type: "button", onclick: () => { edits.splice(i, 1); show(); run(); } }, "remove"))));
  const add = () => {
    const found = neurons.value.trim().split(/[\s,]+/).map(parseName), wrong = wrongNeuron(neurons.value.trim() ? found : [null]);
    if (wrong) {
      status.textContent = wrong;
      return;
    }
    if (kind.value === "scale" && !Number.isFinite(factor.valueAsNumber)) {
      status.textContent = "The factor must be a number, such as 0.5.";
      return;
    }
    edits.push({ neurons: found, kind: kind.value, factor: factor.valueAsNumber, on: true });
    show();
    run();
  };
  const run = async () => {
    asking?.abort();
    const mine = (asking = new AbortController());
    const watch = watched.value.trim() ? parseName(watched.value) : null, wrong = watched.value.trim() ? wrongNeuron([watch]) : "";
    if (wrong) {
      status.textContent = wrong;
      return;
    }
    const on = edits.filter((edit) => edit.on).map((edit) => ({ neurons: edit.neurons, kind: edit.kind, ...(edit.kind === "scale" ? { factor: edit.factor } : {}) }));
    const asked = model.value;
    status.textContent = "Computing…";
    try {
      const found = await ask("/api/score", {
        model: asked, prompt: root.querySelector("#live-prompt").value, chosen: root.querySelector("#live-chosen").value,
        rejected: root.querySelector("#live-rejected").value, edits: on, neuron: watch, top: 20, tab,
      });
      if (mine !== asking) return;
      status.textContent = `Margin ${figure(found.clean.margin)}${found.edited ? `, edited ${figure(found.edited.margin)}` : ""}.`;
      results.replaceChildren(...liveResults(found, asked, watch && nameOf(watch)));
    } catch (error) {
      if (mine !== asking || error.name === "AbortError") return;
      status.textContent = `Not computed: ${error.message}`;
      results.replaceChildren(); // they are of another request
    }
  };
  root.append(element("section", { class: "live" }, element("h2", {}, "Your own pair"),
    element("p", {}, "Rewards of two responses to one prompt, with and without edits of neurons. The prompt is one question, or a transcript in turns of Human and Assistant."),
    element("form", { onsubmit: (event) => { event.preventDefault(); run(); } },
      element("label", {}, "Reward model", model), text("live-prompt", "Prompt", "How do I keep bread fresh?"),
      element("div", { class: "pair" }, text("live-chosen", "Chosen response", "Wrap it in a cloth and keep it in a bread box, or freeze what you will not eat in two days."), text("live-rejected", "Rejected response", "I don't know. Ask somebody else.")),
      element("label", {}, "Show the activations of neuron", watched), element("p", {}, element("button", { type: "submit", id: "live-run" }, "Score"))),
    element("h3", {}, "Edits"), element("div", { class: "pager" }, element("label", { class: "row" }, "Neurons", neurons), element("label", { class: "row" }, "Edit", kind), factor, element("button", { type: "button", id: "live-add", onclick: add }, "Add")), list, status, results));
  ask("/api/models").then((found) => {
    served = found.models;
    model.replaceChildren(...served.map((each) => element("option", { value: each.name, title: each.source }, `${each.name} (${each.source})`)));
    if (served.some((each) => each.name === state.model)) model.value = state.model;
  })
    .catch((error) => { status.textContent = `No model: ${error.message}`; });
}

// A model that the page has nothing of has no pages of neurons either.
const liveLink = (model, neuron) => (shapeOf(model) ? element("a", { href: linkTo(neuron, model) }, nameOf(neuron)) : nameOf(neuron));

function liveResults(found, model, watched) {
  const row = (label, value) => element("tr", {}, element("th", { class: "text", scope: "row" }, label), ...["chosen", "rejected", "margin"].map((key) => element("td", { "data-of": `${label} ${key}` }, value[key].toFixed(5))));
  const parts = [element("table", { id: "live-rewards" }, element("thead", {}, element("tr", {}, element("th"), ...["chosen", "rejected", "margin"].map((key) => element("th", { scope: "col" }, `${key} (reward units)`)))),
    element("tbody", {}, row("clean", found.clean), ...(found.edited ? [row("edited", found.edited)] : [])))];
  for (const run of ["clean", "edited"]) for (const side of ["chosen", "rejected"]) {
    const values = found[side][run];
    if (!values) continue;
    const peakAt = largestFrom(values, found[side].response_start), largest = Math.abs(values[largestFrom(values, 0)]);
    const levels = Int8Array.from(values, (value) => (largest ? Math.round((value / largest) * LEVELS) : 0));
    parts.push(element("h3", {}, `Neuron ${watched} on the ${side} response, ${run}: peak in the response ${figure(values[peakAt])}`), tokenLine(found[side], levels, largest / LEVELS, values[peakAt] ? peakAt : -1));
  }
  parts.push(element("h3", {}, "Estimated to move this margin most"), element("p", { class: "hint" }, "Estimated from one backward pass, on the model without edits. Positive: the neuron raises the margin."),
    element("ol", { class: "words" }, ...found.top.map((each) => element("li", {}, liveLink(model, [each.layer, each.neuron]), ` ${figure(each.effect)}, peak activation ${figure(each.peak)}`))));
  return parts;
}
