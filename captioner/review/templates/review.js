/* The review: choose an image, say what its caption is worth. `page` is in base.js. */
(() => {
  const {data, make, written, say, percent} = page;
  const $ = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en");
  const byName = new Intl.Collator(undefined, {numeric: true}).compare;
  const VERDICTS = ["accepted", "corrected", "rejected"];

  /* --- the server ---------------------------------------------------------------------- */

  let items = new Map(), order = [], version = -1;
  const others = new BroadcastChannel(`captioner.review ${location.pathname}`);

  class Refused extends Error {
    constructor(status, message) { super(message); this.status = status; }
  }

  async function ask(path, given) {
    let response;
    try {
      response = await fetch(path, given === undefined ? {} : {
        method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(given),
      });
    } catch {
      throw new Refused(0, "captioner review does not answer: start it again, and open its address");
    }
    const answer = await response.json();
    if (!response.ok) throw new Refused(response.status, answer.error);
    return answer;
  }

  function trouble(text) {
    $("trouble").textContent = text || "";
    $("trouble").hidden = !text;
  }

  /* One after the other: an undo must not pass what it undoes. */
  let queue = Promise.resolve();
  const inTurn = (work) => (queue = queue.then(work));

  async function fetchItems(all) {
    const found = await ask(`items?since=${all ? -1 : version}`);
    if (all) {
      order = found.items.map((item) => item.name);
      items = new Map();
    }
    for (const item of found.items) items.set(item.name, item);
    version = found.version;
    listTags();
  }

  /* --- what is shown ------------------------------------------------------------------- */

  let shown = [], active = null;
  const wanted = {
    all: () => true,
    open: (item) => !item.verdict && !item.problem,
    accepted: (item) => item.verdict === "accepted",
    corrected: (item) => item.verdict === "corrected",
    rejected: (item) => item.verdict === "rejected",
    none: (item) => item.text === null,
  };
  const last = (item) => (item.sure === null ? 1 : 0);
  const orders = {
    order: null,
    unsure: (a, b) => last(a) - last(b) || a.sure - b.sure,
    sure: (a, b) => last(a) - last(b) || b.sure - a.sure,
  };
  const fields = [$("search"), $("show"), $("sort"), $("tag"), $("from"), $("to")];

  function listTags() {
    const counts = new Map(), chosen = $("tag").value;
    for (const item of items.values()) {
      for (const name of new Set(item.tags)) counts.set(name, (counts.get(name) || 0) + 1);
    }
    const sorted = [...counts].sort((a, b) => b[1] - a[1] || byName(a[0], b[0]));
    $("tag").replaceChildren(new Option("all", ""),
      ...sorted.map(([name, of]) => new Option(`${name} (${number.format(of)})`, name)));
    $("tag").value = counts.has(chosen) ? chosen : "";
    $("tag-field").hidden = !counts.size;
    $("sure-field").hidden = ![...items.values()].some((item) => item.sure !== null);
  }

  function bounds() {
    const at = (id, otherwise) => {
      const value = $(id).valueAsNumber;
      return (Number.isFinite(value) ? value : otherwise) / 100;
    };
    return [at("from", 0), at("to", 100)];
  }

  function filter() {
    const terms = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [from, to] = bounds(), any = from <= 0 && to >= 1, tag = $("tag").value;
    const matches = (item) =>
      wanted[$("show").value](item) &&
      (!tag || item.tags.includes(tag)) &&
      (any || (item.sure !== null && item.sure >= from && item.sure <= to)) &&
      terms.every((term) => hay(item).includes(term));
    shown = order.map((name) => items.get(name)).filter(matches);
    if (orders[$("sort").value]) shown.sort(orders[$("sort").value]);
    const all = number.format(order.length), some = number.format(shown.length);
    $("count").textContent = shown.length === order.length ? `${all} images` : `${some} of ${all} images`;
    $("clear").hidden = !(terms.length || tag || !any || $("show").value !== "all");
    $("nothing").hidden = shown.length > 0;
    document.querySelector(".desk").hidden = !shown.length;
    progress();
    $("rows").style.height = `${shown.length * rowHeight()}px`;
    for (const row of [...$("rows").children]) drop(row);
    draw();
  }
  const hay = (item) => [item.text || "", item.name, ...item.tags].join("\n").toLowerCase();

  function progress() {
    const counts = Object.fromEntries(VERDICTS.map((verdict) => [verdict, 0]));
    for (const item of items.values()) if (item.verdict) counts[item.verdict]++;
    const done = VERDICTS.reduce((sum, verdict) => sum + counts[verdict], 0);
    const parts = VERDICTS.filter((v) => counts[v]).map((v) => `${number.format(counts[v])} ${v}`);
    $("progress").textContent = [
      `${number.format(done)} of ${number.format(order.length)} reviewed`, ...parts,
    ].join(" · ");
  }

  /* --- the list: only the rows near its window exist ------------------------------------- */

  const list = $("list");
  const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).fontSize) * 5.25;
  const viewOf = (item, large) =>
    `view?name=${encodeURIComponent(item.name.toWellFormed())}${large ? "&large" : ""}`;

  function rowOf(item, place) {
    const thumb = make("div", {className: "thumb"});
    if (item.hasView) {
      const image = make("img", {alt: "", decoding: "async"});
      image.dataset.src = viewOf(item);
      thumb.append(image);
    }
    const caption = item.text !== null ? item.text
      : item.verdict === "rejected" ? make("del", {}, item.before) : item.problem || "no caption";
    const small = make("p", {className: "small"},
      make("span", {className: "name", title: item.name}, item.name),
      item.verdict ? make("span", {className: `mark ${item.verdict}`}, item.verdict) : null,
      item.sure !== null ? make("span", {className: "number", title: "Confidence"}, percent(item.sure)) : null);
    const row = make("div", {
      className: "row", role: "option", id: `row-${place}`,
      "aria-selected": String(item.name === active),
      "aria-posinset": place + 1, "aria-setsize": shown.length,
    }, thumb, make("div", {},
      make("p", {
        className: item.text === null ? "caption none" : "caption",
        ...(item.text === null ? {} : written(item.language)),
      }, caption), small));
    row.style.transform = `translateY(${place * rowHeight()}px)`;
    row.dataset.name = item.name;
    row.dataset.place = place;
    row.addEventListener("click", () => choose(item.name));
    return row;
  }

  function drop(row) {
    const image = row.querySelector("img");
    if (image && !image.complete) image.removeAttribute("src");  /* Or it would still be asked for. */
    row.remove();
  }
  let settled = 0;
  function draw() {
    const height = rowHeight();
    const first = Math.max(0, Math.floor(list.scrollTop / height) - 3);
    const end = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / height) + 3);
    const there = new Map([...$("rows").children].map((row) => [Number(row.dataset.place), row]));
    for (const [place, row] of there) if (place < first || place >= end) drop(row);
    for (let place = first; place < end; place++) {
      if (!there.has(place)) $("rows").append(rowOf(shown[place], place));
    }
    /* Not while the list flies past: each image has to be read. */
    clearTimeout(settled);
    settled = setTimeout(() => {
      for (const image of $("rows").querySelectorAll("img[data-src]")) {
        image.src = image.dataset.src;
        delete image.dataset.src;
      }
    }, 80);
  }
  list.addEventListener("scroll", draw, {passive: true});
  new ResizeObserver(draw).observe(list);

  function redraw(item) {
    const place = shown.findIndex((each) => each.name === item.name);
    if (place < 0) return;
    shown[place] = item;
    const row = $(`row-${place}`);
    if (!row) return;
    const fresh = rowOf(item, place), image = row.querySelector("img");
    if (image && fresh.querySelector("img")) fresh.querySelector("img").replaceWith(image);
    row.replaceWith(fresh);
  }

  /* --- the chosen image ------------------------------------------------------------------ */

  const text = $("text");
  const current = () => items.get(active) || null;
  let filled = "";  /* what the field held before anything was typed */
  const isDirty = () => current() !== null && !text.disabled && text.value.trim() !== filled;
  const textChanged = () => { $("save").disabled = !isDirty() || !text.value.trim(); };
  text.addEventListener("input", textChanged);

  function choose(name) {
    if (name !== active && isDirty()) save();
    const before = active;
    active = name;
    for (const row of $("rows").children) {
      row.setAttribute("aria-selected", String(row.dataset.name === name));
    }
    if (name !== before) closePrompt();
    fill();
    const place = shown.findIndex((item) => item.name === name);
    if (place >= 0) {
      reveal(place);
      list.setAttribute("aria-activedescendant", `row-${place}`);
      for (const next of shown.slice(place + 1, place + 3)) {
        if (next.hasView) new Image().src = viewOf(next, true);
      }
    }
  }

  function reveal(place) {
    const top = place * rowHeight(), bottom = top + rowHeight();
    if (top < list.scrollTop) list.scrollTop = top;
    else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
    draw();
  }

  function fill() {
    const item = current();
    $("one").hidden = !item;
    if (!item) return;
    if ($("large").dataset.name !== item.name) {
      $("large").dataset.name = item.name;
      $("large").hidden = !item.hasView;
      if (item.hasView) $("large").src = viewOf(item, true);
    }
    $("large").alt = item.text || item.name;
    $("why").textContent = item.problem || "";
    $("why").hidden = !item.problem;
    $("name").textContent = item.name;
    for (const field of [text, $("prompt")]) {
      field.removeAttribute("lang");
      Object.assign(field, written(item.language));
    }
    text.value = filled = item.text || "";
    text.disabled = $("reject").disabled = $("again").disabled = item.problem !== null;
    $("accept").disabled = item.problem !== null || item.text === null;
    $("reject").disabled ||= item.verdict === "rejected";
    textChanged();
    $("about").replaceChildren(...aboutOf(item));
    $("tags").replaceChildren(...item.tags.map((name) => {
      const button = make("button", {type: "button", title: `Show all images with ${name}`}, name);
      button.addEventListener("click", () => { $("tag").value = name; filter(); start(); });
      return make("li", {}, button);
    }));
  }
  $("large").addEventListener("error", () => {
    $("large").hidden = true;
    $("why").textContent = (current() && current().problem) || "The image cannot be read.";
    $("why").hidden = false;
  });

  function aboutOf(item) {
    const parts = [];
    if (item.sure !== null) parts.push(`Confidence of captioner's caption: ${percent(item.sure)}`);
    if (item.verdict) parts.push(make("span", {className: `mark ${item.verdict}`}, item.verdict));
    if (item.verdict && item.verdict !== "accepted" && item.before !== null) {
      parts.push(make("span", {}, "before: ", make("del", written(item.language), item.before)));
    }
    return parts.flatMap((part, place) => (place ? [" · ", part] : [part]));
  }

  /* --- what is said of it ---------------------------------------------------------------- */

  function put(item) {
    items.set(item.name, item);
    redraw(item);
    progress();
    if (item.name === active && !isDirty()) fill();
  }

  /* The page shows the change at once; what the server makes of it follows. */
  function change(path, item, given, expected) {
    const before = {...item};
    put({...item, ...expected});
    if (item.name === active) fill();
    return inTurn(async () => {
      try {
        const answer = await ask(path, {name: item.name, seen: before.text, ...given});
        trouble("");
        put(answer.item);
        say(answer.item.verdict || "saved");
        others.postMessage("changed");
      } catch (error) {
        put(before);
        await failed(error, item.name, given.text);
      }
    });
  }

  async function failed(error, name, written) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 409) {
      await fetchItems(true);
      filter();
    }
    choose(name);
    if (written !== undefined && error.status !== 409) { text.value = written; textChanged(); }
    trouble(`${name}: not saved: ${error.message}`);
  }

  function nextAfter(act) {
    const place = shown.findIndex((item) => item.name === active);
    const next = shown[place + 1];
    act();
    if ($("show").value !== "all") filter();
    if (next && items.has(next.name)) choose(next.name);
    else if (!shown.some((item) => item.name === active)) choose(shown.length ? shown[shown.length - 1].name : null);
    else fill();
  }

  function accept() {
    const item = current();
    if (!item || item.problem) return;
    if (isDirty()) { if (text.value.trim()) nextAfter(save); return; }
    if (item.text === null) return;
    nextAfter(() => change("accept", item, {}, {verdict: "accepted"}));
  }
  function save() {
    const item = current(), written = text.value.replace(/\s+/g, " ").trim();
    if (!item || item.problem || !written) { fill(); return; }
    const verdict = written === item.text ? "accepted" : "corrected";
    text.value = filled = written;
    change("correct", item, {text: written}, {text: written, verdict, before: item.text});
  }
  function reject() {
    const item = current();
    if (!item || item.problem || item.verdict === "rejected") return;
    text.value = filled;
    nextAfter(() => change("reject", item, {}, {text: null, verdict: "rejected", before: item.text}));
  }
  function undo() {
    return inTurn(async () => {
      try {
        const answer = await ask("undo", {});
        trouble("");
        if (!answer.item) { say("Nothing to undo"); return; }
        items.set(answer.item.name, answer.item);
        filter();
        choose(answer.item.name);
        fill();
        say("Undone");
        others.postMessage("changed");
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        trouble(`Not undone: ${error.message}`);
      }
    });
  }
  $("accept").addEventListener("click", accept);
  $("save").addEventListener("click", () => nextAfter(save));
  $("reject").addEventListener("click", reject);
  $("undo").addEventListener("click", undo);

  /* --- captions from the person's own words ------------------------------------------------ */

  function openPrompt() {
    if (!current() || current().problem) return;
    $("prompt-form").hidden = false;
    $("prompt").focus();
    $("prompt").select();
  }
  function closePrompt() {
    $("prompt-form").hidden = $("proposals").hidden = true;
    $("proposals").replaceChildren();
  }
  $("again").addEventListener("click", openPrompt);
  $("prompt-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const item = current();
    $("proposals").hidden = false;
    $("proposals").replaceChildren(make("li", {className: "none"}, "Captioning ..."));
    try {
      const found = await ask("propose", {name: item.name, prompt: $("prompt").value});
      if (active !== item.name) return;
      trouble("");
      $("proposals").replaceChildren(...found.texts.map((proposal, place) => {
        const button = make("button", {type: "button"}, make("kbd", {}, String(place + 1)), " ",
          make("span", written(item.language), proposal));
        button.addEventListener("click", () => take(proposal));
        return make("li", {}, button);
      }));
      list.focus({preventScroll: true});
      say(`${found.texts.length} captions`);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      closePrompt();
      trouble(`${item.name}: not captioned: ${error.message}`);
    }
  });
  function take(proposal) {
    text.value = proposal;
    closePrompt();
    nextAfter(save);
    list.focus({preventScroll: true});
  }

  /* --- keys ---------------------------------------------------------------------------------- */

  function step(by) {
    if (!shown.length) return;
    const place = shown.findIndex((item) => item.name === active);
    choose(shown[Math.max(0, Math.min(shown.length - 1, place + by))].name);
  }
  function nextOpen() {
    const place = shown.findIndex((item) => item.name === active);
    const next = [...shown.slice(place + 1), ...shown.slice(0, place + 1)].find(wanted.open);
    if (next) choose(next.name); else say("All are reviewed");
  }
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (text.value.trim()) nextAfter(save); else fill();
      list.focus({preventScroll: true});
    } else if (event.key === "Escape") {
      fill();
      list.focus({preventScroll: true});
    }
  });
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Escape") { closePrompt(); list.focus({preventScroll: true}); }
  });
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === "ArrowDown") { event.preventDefault(); list.focus(); }
  });
  const keys = {
    j: () => step(1), k: () => step(-1), ArrowDown: () => step(1), ArrowUp: () => step(-1),
    PageDown: () => step(8), PageUp: () => step(-8),
    Home: () => step(-shown.length), End: () => step(shown.length),
    a: accept, x: reject, u: undo, n: nextOpen, p: openPrompt,
    e: () => { text.focus(); text.setSelectionRange(text.value.length, text.value.length); },
    "/": () => { $("search").focus(); $("search").select(); },
    "?": () => help.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea") || help.open || event.altKey) return;
    if (event.ctrlKey || event.metaKey) {
      if (event.key === "z") { event.preventDefault(); undo(); }
      return;
    }
    const proposal = $("proposals").querySelectorAll("button")[Number(event.key) - 1];
    const act = proposal ? () => proposal.click() : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  const help = $("help");
  $("keys").addEventListener("click", () => help.showModal());
  $("help-close").addEventListener("click", () => help.close());

  /* --- the beginning, and other tabs ------------------------------------------------------------ */

  function start() {
    if (!shown.some((item) => item.name === active)) choose(shown.length ? shown[0].name : null);
  }
  for (const field of fields) field.addEventListener("input", () => { list.scrollTop = 0; filter(); start(); });
  $("clear").addEventListener("click", () => {
    $("search").value = $("tag").value = "";
    $("show").value = "all";
    $("from").value = 0;
    $("to").value = 100;
    filter();
    start();
  });
  function sync() {
    return inTurn(async () => {
      try {
        const before = version;
        await fetchItems(false);
        if (version === before) return;
        filter();
        if (!isDirty()) fill();
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        trouble(error.message);
      }
    });
  }
  others.addEventListener("message", sync);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) sync(); });
  addEventListener("beforeunload", (event) => { if (isDirty()) event.preventDefault(); });

  inTurn(async () => {
    try {
      await fetchItems(true);
      filter();
      start();
      list.focus({preventScroll: true});
      document.body.dataset.ready = "yes";
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      trouble(error.message);
    }
  });
})();
