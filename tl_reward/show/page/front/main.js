// Puts the page together.

function fillControls() {
  const model = document.getElementById("model"), metric = document.getElementById("metric"), search = document.getElementById("search");
  const help = document.getElementById("search-help");
  model.replaceChildren(...manifest.models.map((each) => element("option", { value: each.name }, each.name)));
  model.addEventListener("change", () => go({ model: model.value }));
  metric.addEventListener("change", () => go({ metric: metric.value }));
  const show = () => {
    model.value = state.model;
    metric.replaceChildren(...columnsOf(state.model).map((each) => element("option", { value: each.key, title: each.about }, `${each.key} (${each.unit})`)));
    metric.value = state.metric;
  };
  subscribe(["model", "metric"], show);
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const found = parseName(search.value), shape = shapeOf(state.model);
    if (found && shape && found[0] < shape.layers && found[1] < shape.width) {
      go({ view: "neuron", neuron: found });
      search.setAttribute("aria-invalid", "false");
      help.textContent = usualHelp;
    } else {
      search.setAttribute("aria-invalid", "true");
      say(shape ? `No such neuron: layers are 0 to ${shape.layers - 1}, neurons 0 to ${shape.width - 1}, written layer.neuron` : "This run has no neurons");
      help.textContent = document.getElementById("said").textContent;
    }
  });
  document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); search.focus(); });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) { event.preventDefault(); search.focus(); }
  });
}

function themeButton() {
  const button = document.getElementById("theme"), system = matchMedia("(prefers-color-scheme: dark)"), choices = ["system", "light", "dark"];
  let choice = "system";
  const show = () => {
    document.documentElement.dataset.theme = choice === "system" ? (system.matches ? "dark" : "light") : choice;
    button.textContent = `Theme: ${choice}`;
  };
  const apply = () => {
    show();
    redrawAll();
    retint();
  };
  button.addEventListener("click", () => { choice = choices[(choices.indexOf(choice) + 1) % choices.length]; apply(); });
  system.addEventListener("change", apply);
  show();
}

function views() {
  const show = () => {
    for (const name of VIEWS) document.getElementById(name).hidden = state.view !== name;
    for (const name of ["overview", "live"]) {
      const link = document.getElementById(`to-${name}`);
      link.href = addressOf({ ...state, view: name });
      if (state.view === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = state.view === "neuron" ? `${nameOf(state.neuron)} · ${manifest.title}` : manifest.title;
  };
  subscribe(["view", "neuron", "model", "metric"], show);
  subscribe(["view", "neuron"], () => window.scrollTo(0, 0));
}

function fillOverview(root) {
  root.append(findingsPanel());
  if (manifest.columns.length) root.append(mapPanel(), comparePanel(), ...tensionPanels(), profilePanel());
  root.append(...overlapPanels());
  root.append(...neuronPanels());
  manifest.panels.forEach((entry, i) => {
    const controls = entry.neurons ? [showSet(entry.neurons)] : [];
    const { section, box } = panel(entry.title, entry.caption, { id: i, height: entry.height, notes: entry.notes, controls });
    whenVisible(box, async () => {
      const { data, layout } = (await jsonBlock("panels"))[i];
      // Black and dark grey are colours of a light page.
      const colors = new Map([["#000000", theme().text], ["#555", theme().guide], ["#444", theme().guide]]);
      if (isDark()) for (const [name, color] of Object.entries(COLORS)) colors.set(color, DARK_COLORS[name]);
      const themed = (value) => JSON.parse(JSON.stringify(value), (_, each) => colors.get(each) ?? each);
      const traces = themed(data);
      for (const trace of traces) if (trace.type === "bar" && trace.error_y) trace.error_y.color ??= theme().text;
      await plotEscaped(box, traces, themed(layout));
    });
    root.append(section);
  });
  if (manifest.missing.length) {
    const items = manifest.missing.map((each) => element("li", {}, `${each.what}: `, element("code", {}, each.command)));
    root.append(element("section", {}, element("h2", {}, "Not in this run"), element("p", {}, "To add it, compute it and name both run folders to tl-reward dashboard. Words in capitals stand for what a page does not tell: RUN is this run's folder, MODEL that of the model."), element("ul", { class: "missing" }, ...items)));
  }
  if (manifest.notes.length) {
    const items = manifest.notes.map((each) => element("li", {}, each));
    root.append(element("section", { id: "notes", "data-folded": "yes" }, element("h2", {}, "Which pairs were read, and how?"), element("ul", { class: "missing" }, ...items)));
  }
}

const showSet = ({ model, set, label }) => element("button", { type: "button", class: "show-set", onclick: () => showInTable({ model, set, layer: null, ranges: {} }) }, label);

// An address may also be that of a section of the overview.
function arrive(event) {
  const section = sectionOf(location.hash);
  follow(event);
  if (section && !section.hidden) reveal(section);
}

async function main() {
  manifest = await jsonBlock("manifest");
  document.getElementById("provenance").textContent = manifest.provenance;
  document.getElementById("to-live").hidden = !manifest.live;
  themeButton();
  fillControls();
  views();
  await loadPlotly();
  neuronView(document.getElementById("neuron"));
  if (manifest.live) liveView(document.getElementById("live"));
  fillOverview(document.getElementById("overview"));
  measureBar();
  sectionMenu();
  openOnPaper();
  window.addEventListener("hashchange", arrive);
  arrive();
  performance.mark("ready");
  document.documentElement.dataset.ready = "yes";
}

main().catch(failed);
