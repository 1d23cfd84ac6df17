"use strict";
/* Draws the figures when they come near, filters runs, and fills the cards of changed answers.
   Texts of items are not to be trusted: they enter the page as textContent only. */
(() => {
  const byId = (id) => document.getElementById(id);
  const make = (tag, text, className = "") =>
    Object.assign(document.createElement(tag), { textContent: text, className });
  const percent = (share) => `${(100 * share).toFixed(1)}`;

  // Figures
  async function draw(holder) {
    if (holder.dataset.state) return;
    holder.dataset.state = "drawing";
    const figure = holder.closest("figure");
    const spec = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    try {
      await vegaEmbed(holder, spec, {
        renderer: "svg", mode: "vega-lite", defaultStyle: false, downloadFileName: holder.dataset.name,
        actions: { export: true, source: false, compiled: false, editor: false },
        tooltip: { disableDefaultStyle: true },
      });
      holder.dataset.state = "drawn";
      const actions = holder.querySelector(".vega-actions"); // an image has no links in it
      if (actions) figure.insertBefore(actions, figure.querySelector("figcaption"));
      // Vega-Embed makes a link's file when the mouse is pressed; a keyboard only focuses it.
      for (const link of actions?.querySelectorAll("a") ?? [])
        link.addEventListener("focus", () => link.dispatchEvent(new MouseEvent("mousedown")));
    } catch (error) {
      holder.dataset.state = "failed";
      holder.textContent = `This figure could not be drawn: ${error.message}`;
    }
  }
  const charts = [...document.querySelectorAll(".chart")];
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "600px" });
  charts.forEach((chart) => near.observe(chart));
  addEventListener("beforeprint", () => charts.forEach(draw));

  // Runs
  const rows = [...document.querySelectorAll("#matrix [data-run]")];
  byId("run-filter")?.addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.dataset.run.toLowerCase().includes(wanted);
    for (const body of document.querySelectorAll(".runs tbody")) body.hidden = !body.querySelector("[data-run]:not([hidden])");
    const found = rows.filter((row) => row.tagName === "TR");
    byId("run-count").textContent = `${found.filter((row) => !row.hidden).length} of ${found.length} runs`;
  });
  function openTarget() {
    const target = byId(location.hash.slice(1));
    if (target?.tagName === "DETAILS") target.open = true;
  }
  addEventListener("click", (event) => {
    if (event.target.closest?.(".cover")) setTimeout(() => { openTarget(); byId(location.hash.slice(1))?.scrollIntoView(); });
  });

  // Changed answers
  const form = byId("flip-filters");
  if (!form) { openTarget(); addEventListener("hashchange", openTarget); return; }
  const data = JSON.parse(byId("flip-data").textContent);
  const facets = ["quadrant", "dataset", "run", "checkpoint", "decoding", "kind"];
  const pageSize = 20;
  const flips = data.flips.map((flip) => {
    const all = { ...data.items[flip.item], ...flip };
    all.words = [all.id, all.question, ...all.options, all.target, flip.before.text, flip.after.text].join("\n").toLowerCase();
    return all;
  });
  let state = {}, shown = pageSize;
  const has = (flip, facet, value) => (facet === "kind" ? flip.kind.includes(value) : flip[facet] === value);
  const matches = (flip, except) =>
    facets.every((facet) => facet === except || !state[facet] || has(flip, facet, state[facet])) &&
    (!state.text || flip.words.includes(state.text.toLowerCase()));

  function options(facet) {
    const counts = new Map();
    for (const flip of flips) for (const value of [flip[facet]].flat())
      counts.set(value, (counts.get(value) ?? 0) + matches(flip, facet));
    const order = data.order[facet];
    const values = [...counts.keys()].sort(order ? (a, b) => order.indexOf(a) - order.indexOf(b)
      : new Intl.Collator("en", { numeric: true }).compare);
    const select = form.elements[facet];
    select.parentElement.hidden = values.length < 2 && !state[facet];
    const kept = values.filter((value) => counts.get(value) || value === state[facet]);
    select.replaceChildren(new Option("all", ""), ...kept.map((value) =>
      new Option(`${data.names[facet]?.[value] ?? value} (${counts.get(value)})`, value)));
    select.value = state[facet] ?? "";
  }

  function share(value) {
    const cell = make("td", value === undefined ? "\u2013" : percent(value));
    const bar = make("span", "", "bar");
    if (value !== undefined) { bar.style.setProperty("--share", `${percent(value)}%`); cell.append(bar); }
    return cell;
  }
  const named = (flip, answer) => flip.options.find((option) => option.startsWith(`${answer}. `)) ?? answer;
  const said = (flip, answer) =>
    `${named(flip, answer.text) || "(nothing)"} \u2013 ${answer.right ? "right" : answer.parsed ? "wrong" : "no rule could read it"}`;
  function card(flip) {
    const node = byId("flip-card").content.cloneNode(true);
    const find = (selector) => node.querySelector(selector);
    const picture = data.pictures[flip.picture], image = find("img");
    if (picture) {
      image.onload = () => image.classList.toggle("is-tiny", Math.max(image.naturalWidth, image.naturalHeight) < 64);
      Object.assign(image, { src: picture, alt: `picture of ${flip.id}`, hidden: false });
    }
    find(".flip-kinds").append(...flip.kind.map((kind) => make("span", kind, "tag")));
    find(".flip-question").textContent = flip.question;
    find(".flip-options").hidden = !flip.options.length;
    find("tbody").append(...flip.options.map((option, index) => {
      const row = make("tr", "", index === flip.right ? "is-right" : "");
      const head = Object.assign(make("th", option), { scope: "row" });
      if (index === flip.right) head.append(" ", make("span", "right", "tag"));
      if (index === flip.class_option) head.append(" ", make("span", "class name", "tag"));
      row.append(head, share(flip.before.shares?.[index]), share(flip.after.shares?.[index]));
      return row;
    }));
    find(".target").textContent = named(flip, flip.target);
    find(".before").textContent = said(flip, flip.before);
    find(".after").textContent = said(flip, flip.after);
    find(".flip-where").textContent = [flip.dataset, data.names.quadrant[flip.quadrant], flip.run, flip.checkpoint, flip.decoding, flip.id].join(" \u00b7 ");
    return node;
  }

  function show(focusFrom) {
    facets.forEach(options);
    form.elements.text.value = state.text ?? "";
    const found = flips.filter((flip) => matches(flip));
    const list = byId("flip-list");
    if (focusFrom === undefined) list.replaceChildren();
    list.append(...found.slice(list.children.length, shown).map(card));
    const n = list.children.length;
    byId("flip-count").textContent = found.length
      ? `${n} of ${found.length.toLocaleString("en")} shown; ${data.total.toLocaleString("en")} ${data.whole}`
      : `Nothing matches these filters; ${data.total.toLocaleString("en")} ${data.whole}`;
    byId("flip-more").hidden = n >= found.length;
    if (focusFrom !== undefined) { const next = list.children[focusFrom]; next.tabIndex = -1; next.focus({ preventScroll: true }); }
  }
  function change(name, value) {
    state = { ...state, [name]: value };
    for (const key of Object.keys(state)) if (!state[key]) delete state[key];
    shown = pageSize;
    const query = new URLSearchParams(state).toString();
    history.replaceState(null, "", query ? `#flips?${query}` : "#flips");
    show();
  }
  function restore() {
    openTarget();
    if (!location.hash.startsWith("#flips?")) return false;
    const asked = [...new URLSearchParams(location.hash.slice(7))].filter(([key]) => key === "text" || facets.includes(key));
    state = Object.fromEntries(asked);
    shown = pageSize;
    show();
    byId("flips").scrollIntoView();
    return true;
  }
  form.addEventListener("input", (event) => change(event.target.name, event.target.value));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => { event.preventDefault(); state = {}; change("text", ""); });
  byId("flip-more").addEventListener("click", () => { const from = shown; shown += pageSize; show(from); });
  addEventListener("hashchange", restore);
  form.hidden = false;
  if (!restore()) show();
})();
