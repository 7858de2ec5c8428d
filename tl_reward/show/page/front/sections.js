// The sections of a view: they fold, the menu leads to them, and a link to one that is folded opens it. On paper all are open.

const VIEWS = ["overview", "neuron", "live"];
const folded = new Map(); // by the section's id, also of neurons' pages, which are made anew for each neuron

const headOf = (section) => section.querySelector(":scope > h2");
const sectionsIn = (view) => [...document.getElementById(view).querySelectorAll(":scope > section")].filter(headOf);
const isFolded = (section) => section.classList.contains("folded");

// A question, and what it is asked of, which is set smaller.
function heading(title) {
  const cut = title.indexOf("? ") + 1;
  return element("h2", {}, ...(cut ? [title.slice(0, cut), " ", element("span", { class: "subject" }, title.slice(cut + 1))] : [title]));
}

function foldable(section) {
  const head = headOf(section);
  if (head.querySelector("button.fold")) return;
  section.id ||= `section-${head.textContent.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "")}`;
  const button = element("button", { type: "button", class: "fold", onclick: () => fold(section, !isFolded(section)) }, ...head.childNodes);
  head.append(button);
  fold(section, folded.get(section.id) ?? section.dataset.folded === "yes");
}

function fold(section, closed) {
  folded.set(section.id, closed);
  section.classList.toggle("folded", closed);
  headOf(section).firstChild.setAttribute("aria-expanded", String(!closed));
  reachScrolled(section);
}

// What scrolls by itself can be scrolled from the keyboard.
function reachScrolled(root) {
  for (const box of root.querySelectorAll(".wide, .tokens")) {
    if (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

// Opens a section and goes there.
function reveal(section) {
  fold(section, false);
  section.scrollIntoView();
  headOf(section).firstChild.focus({ preventScroll: true });
  hold(section);
}

// What stands above may still be drawn, and grow: for a second the section stays where it is, unless the reader moves.
function hold(section) {
  const growing = new ResizeObserver(() => section.scrollIntoView()), listening = new AbortController();
  const stop = () => { growing.disconnect(); listening.abort(); };
  growing.observe(document.querySelector("main"));
  setTimeout(stop, 1000);
  for (const move of ["wheel", "touchstart", "keydown", "pointerdown"]) window.addEventListener(move, stop, { passive: true, signal: listening.signal });
}

const sectionOf = (hash) => {
  const found = hash.length > 1 && document.getElementById(hash.slice(1));
  return found && found.matches("section") && headOf(found) ? found : null;
};

function sectionMenu() {
  const menu = document.getElementById("sections"), toggle = document.getElementById("to-sections");
  const open = (yes) => {
    menu.style.setProperty("--below", `${document.getElementById("bar").getBoundingClientRect().bottom}px`);
    toggle.setAttribute("aria-expanded", String(yes));
    menu.classList.toggle("open", yes);
  };
  const shown = new Set();
  const mark = () => {
    const now = sectionsIn(state.view).find((section) => shown.has(section));
    for (const link of menu.querySelectorAll("a")) {
      if (now && link.hash === `#${now.id}`) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  const watch = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) shown[isIntersecting ? "add" : "delete"](target);
    mark();
  }, { rootMargin: "-15% 0px -55% 0px" });
  const list = () => {
    const sections = sectionsIn(state.view).filter((section) => !section.hidden);
    sections.forEach(foldable);
    watch.disconnect();
    shown.clear();
    sections.forEach((section) => watch.observe(section));
    const items = sections.map((section) => {
      const text = headOf(section).textContent, subject = section.querySelector(":scope > h2 .subject");
      const name = subject ? [element("span", {}, text.slice(0, -subject.textContent.length - 1)), element("span", { class: "subject" }, subject.textContent)] : [element("span", {}, text)];
      return element("li", {}, element("a", { href: `#${section.id}`, title: text }, ...name));
    });
    const every = element("button", { type: "button", id: "fold-all", onclick: () => {
      const close = every.textContent === "Fold all"; // as it says, whatever was folded since
      sections.forEach((section) => fold(section, close));
      every.textContent = close ? "Open all" : "Fold all";
    } }, sections.every(isFolded) ? "Open all" : "Fold all");
    menu.replaceChildren(element("ul", {}, ...items), every);
    toggle.hidden = menu.hidden = sections.length < 2;
    document.getElementById(state.view).querySelectorAll(":scope > section").forEach(reachScrolled);
  };
  const changes = new MutationObserver(list);
  VIEWS.forEach((view) => changes.observe(document.getElementById(view), { childList: true }));
  subscribe(["view", "model", "metric", "versus", "own"], () => { open(false); list(); });
  window.addEventListener("resize", () => VIEWS.forEach((view) => reachScrolled(document.getElementById(view))));
  toggle.addEventListener("click", () => open(!menu.classList.contains("open")));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && menu.classList.contains("open")) { open(false); toggle.focus(); }
  });
  document.addEventListener("click", (event) => {
    const section = sectionOf(event.target.closest?.("a[href^='#']")?.hash ?? "");
    if (section) { event.preventDefault(); open(false); reveal(section); } else if (!event.target.closest?.("#sections, #to-sections")) open(false);
  });
}

// The bar stays at the top: nothing that is scrolled to may end up below it.
function measureBar() {
  const bar = document.getElementById("bar");
  new ResizeObserver(() => document.documentElement.style.setProperty("--bar", `${bar.offsetHeight + (parseFloat(getComputedStyle(bar).top) || 0)}px`)).observe(bar);
}

function openOnPaper() {
  const root = document.documentElement;
  let before = null;
  setTimeout(() => jsonBlock("panels").catch(() => {}), 2000); // a browser that prints waits for no block to be read
  window.addEventListener("beforeprint", () => {
    if (before) return;
    before = { theme: root.dataset.theme, closed: [...document.querySelectorAll("details:not([open])")] };
    for (const each of before.closed) each.open = true;
    root.dataset.theme = "light";
    root.dataset.print = "yes";
    redrawAll({ far: true });
    retint();
  });
  window.addEventListener("afterprint", () => {
    if (!before) return;
    for (const each of before.closed) each.open = false;
    root.dataset.theme = before.theme;
    delete root.dataset.print;
    before = null;
    redrawAll();
    retint();
  });
}
