/* The report: find images, look at words, correct captions. `page` is in base.js. */
(() => {
  const {data, make, written, nameOf, say, download, copy, percent, recall, remember} = page;
  const $ = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en");
  const byName = new Intl.Collator(undefined, {numeric: true}).compare;

  /* --- the images ------------------------------------------------------------------ */

  /* A record is kept as it was read, and may be anybody's: what has another shape is not shown. */
  const share = (value) => (typeof value === "number" && value >= 0 && value <= 1 ? value : null);
  const list = (value) => (Array.isArray(value) ? value : []);

  /* Whether a caption says something else than another: not the same with other words at its end. */
  function differs(text, other) {
    if (text === null || text.endsWith(other) || other.endsWith(text)) return text === null;
    const words = other.split(" "), own = text.split(" ");
    const at = words.findIndex((word, place) => word !== own[place]);
    return at >= 0 && at < words.length / 2;
  }

  /* The captions in other languages: of each its language, its text and how sure it is. */
  function versionsOf(given) {
    return Object.entries(given && typeof given === "object" ? given : {})
      .filter(([, each]) => each && typeof each.text === "string")
      .map(([language, each]) => ({language, text: each.text, sure: share(each.confidence)}));
  }

  function itemOf(given, place) {
    const record = given.record;
    const candidates = list(record.candidates).filter((c) => c && typeof c.text === "string");
    const first = candidates[0];
    const same = first && first.text === record.text;
    const spoken = same ? list(first.words).filter((pair) => pair && pair[0] !== null) : [];
    return {
      place, record, around: given.around_text || null,
      name: record.file_name,
      text: typeof record.text === "string" ? record.text : null,
      language: typeof record.language === "string" ? record.language : null,
      versions: versionsOf(record.other_languages),
      sure: share(record.confidence),
      calibrated: record.calibrated !== false,
      error: typeof record.error === "string" ? record.error : null,
      tags: list(record.tags).filter((tag) => tag && typeof tag.name === "string"),
      others: (same ? candidates.slice(1) : candidates).map((c) => ({
        text: c.text,
        perWord: typeof c.avg_logprob === "number" ? share(Math.exp(c.avg_logprob)) : null,
      })),
      words: given.words || spoken.map((pair) => pair[0]),
      probs: given.word_probs || spoken.map((pair) => pair[1]),
      levels: given.levels || null,
      window: given.window || [0, 0, 1, 1],
      thumbnail: given.thumbnail || null,
      problem: given.problem || null,
      file: given.file || null,
    };
  }
  const items = data.items.map(itemOf);

  /* --- corrections, kept for this report where the browser keeps anything ------------- */

  const memory = `captioner.report.${data.id}`;
  const names = new Map();  /* Two lines may have one name: the second has a key of its own. */
  for (const item of items) {
    const before = names.get(item.name) || 0;
    names.set(item.name, before + 1);
    item.key = before ? `${item.name}\n${before}` : item.name;
  }
  const edits = new Map();
  let isKept = true;
  try {
    for (const [key, text] of Object.entries(JSON.parse(recall(memory) || "{}"))) {
      if (typeof text === "string") edits.set(key, text);
    }
  } catch { /* not ours: begin with none */ }
  for (const item of items) if (edits.get(item.key) === item.text) edits.delete(item.key);

  const isUnsure = (item) => item.text !== null && !edits.has(item.key) &&
    item.sure !== null && item.sure < data.unsure_below && item.calibrated;
  const textOf = (item) => (edits.has(item.key) ? edits.get(item.key) : item.text);
  function edit(item, text) {
    const clean = text.replace(/\s+/g, " ").trim();
    if (clean === "" || clean === item.text) edits.delete(item.key);
    else edits.set(item.key, clean);
    item.hay = null;
    isKept = remember(memory, edits.size ? JSON.stringify(Object.fromEntries(edits)) : null);
    refresh(item);
    say(edits.has(item.key) ? "Caption changed" : "Caption as it was");
  }
  window.addEventListener("beforeunload", (event) => {
    if (!isKept && edits.size) event.preventDefault();
  });

  /* --- which are shown ---------------------------------------------------------------- */

  const search = $("search"), sort = $("sort"), tag = $("tag"), show = $("show");
  const least = $("least"), count = $("count"), hider = $("unsure");
  const counts = new Map();
  for (const item of items) {
    for (const name of new Set(item.tags.map((each) => each.name))) {
      counts.set(name, (counts.get(name) || 0) + 1);
    }
  }
  tag.append(new Option("all", ""));
  for (const [name, of] of [...counts].sort((a, b) => b[1] - a[1] || byName(a[0], b[0]))) {
    tag.append(new Option(`${name} (${number.format(of)})`, name));
  }
  $("tag-field").hidden = !counts.size;
  $("least-field").hidden = !items.some((item) => item.sure !== null);
  $("unsure-field").hidden = !items.some(isUnsure);

  function hay(item) {
    item.hay ??= [textOf(item) || "", item.name, item.error || "", ...item.tags.map((t) => t.name),
      ...item.versions.map((each) => each.text)]
      .join("\n").toLowerCase();
    return item.hay;
  }
  const wanted = {
    all: () => true,
    captioned: (item) => textOf(item) !== null,
    errors: (item) => item.error !== null,
    edited: (item) => edits.has(item.key),
  };
  const last = (item) => (item.sure === null ? 1 : 0);
  const orders = {
    order: (a, b) => a.place - b.place,
    sure: (a, b) => last(a) - last(b) || b.sure - a.sure || a.place - b.place,
    unsure: (a, b) => last(a) - last(b) || a.sure - b.sure || a.place - b.place,
    name: (a, b) => byName(a.name, b.name) || a.place - b.place,
  };
  let shown = [], active = null;

  function filter() {
    const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const floor = Number(least.value) / 100;
    shown = items.filter((item) =>
      wanted[show.value](item) && !(hider.checked && isUnsure(item)) &&
      (!tag.value || item.tags.some((each) => each.name === tag.value)) &&
      (floor === 0 || (item.sure !== null && item.sure >= floor)) &&
      terms.every((term) => hay(item).includes(term)));
    shown.sort(orders[sort.value]);
    $("least-shown").textContent = `${least.value}%`;
    $("nothing").hidden = shown.length > 0;
    $("clear").hidden = !(search.value || tag.value || floor || hider.checked || show.value !== "all");
    if (!shown.includes(active)) active = shown[0] || null;
    for (const card of cards.values()) card.remove();
    cards.clear();
    layout();
    const all = `${number.format(items.length)} image${items.length === 1 ? "" : "s"}`;
    const some = number.format(shown.length);
    count.textContent = shown.length > most
      ? `${some} of ${all}, the first ${number.format(most)} are shown`
      : shown.length === items.length ? all : `${some} of ${all}`;
  }
  for (const field of [search, sort, tag, show, least, hider]) field.addEventListener("input", filter);
  $("clear").addEventListener("click", () => {
    search.value = tag.value = "";
    least.value = 0;
    hider.checked = false;
    show.value = "all";
    filter();
    search.focus();
  });

  /* --- the list: only the cards near the window exist --------------------------------- */

  const feed = $("cards"), cards = new Map();
  const TALLEST = 15e6;  /* pixels; some browsers cannot scroll further */
  let columns = 1, rowHeight = 1, cardWidth = 1, most = Infinity, gap = 12;

  function layout() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const style = getComputedStyle(document.documentElement);
    gap = 0.75 * rem;
    rowHeight = parseFloat(style.getPropertyValue("--card-height")) * rem + gap;
    const least = parseFloat(style.getPropertyValue("--card-width")) * rem;
    const width = feed.clientWidth;
    columns = Math.max(1, Math.floor((width + gap) / (least + gap)));
    cardWidth = (width - gap * (columns - 1)) / columns;
    most = Math.floor(TALLEST / rowHeight) * columns;
    const rows = Math.ceil(Math.min(shown.length, most) / columns);
    feed.style.height = `${Math.max(0, rows * rowHeight - gap)}px`;
    draw();
  }

  function draw() {
    const top = -feed.getBoundingClientRect().top;
    const end = Math.min(shown.length, most);
    const first = Math.max(0, (Math.floor(top / rowHeight) - 1) * columns);
    const beyond = Math.min(end, (Math.ceil((top + innerHeight) / rowHeight) + 1) * columns);
    const places = [];
    for (let place = first; place < beyond; place++) places.push(place);
    /* The card with the focus stays, or the keyboard would be nowhere. */
    const at = active ? shown.indexOf(active) : -1;
    if (at >= 0 && at < first) places.unshift(at);
    else if (at >= Math.max(beyond, first) && at < end) places.push(at);
    const keep = new Set(places.map((place) => shown[place]));
    for (const [item, card] of cards) {
      if (!keep.has(item)) { card.remove(); cards.delete(item); }
    }
    let next = feed.firstChild;
    for (const place of places) {
      const item = shown[place];
      let card = cards.get(item);
      if (!card) { card = cardOf(item); cards.set(item, card); }
      card.setAttribute("aria-posinset", place + 1);
      card.setAttribute("aria-setsize", shown.length);
      card.style.width = `${cardWidth}px`;
      const x = (place % columns) * (cardWidth + gap), y = Math.floor(place / columns) * rowHeight;
      card.style.transform = `translate(${x}px, ${y}px)`;
      if (card === next) next = next.nextSibling; else feed.insertBefore(card, next);
    }
  }
  let waits = false;
  addEventListener("scroll", () => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => { waits = false; draw(); });
  }, {passive: true});
  new ResizeObserver(layout).observe(feed);

  function refresh(item) {
    const card = cards.get(item);
    if (card) {
      const focused = card.contains(document.activeElement);
      const fresh = cardOf(item);
      for (const name of ["aria-posinset", "aria-setsize"]) {
        fresh.setAttribute(name, card.getAttribute(name));
      }
      fresh.style.width = card.style.width;
      fresh.style.transform = card.style.transform;
      cards.set(item, fresh);
      card.replaceWith(fresh);
      if (focused) fresh.focus({preventScroll: true});
    }
    if (details.open && opened === item) fillDetails(item);
  }

  /* --- one card ----------------------------------------------------------------------- */

  function button(text, action, properties) {
    const made = make("button", {type: "button", ...properties}, text);
    made.addEventListener("click", action);
    return made;
  }

  function imageOf(item) {
    const box = make("div", {className: "picture"});
    if (item.thumbnail) {
      box.append(make("img", {
        src: data.thumbnails + item.thumbnail, loading: "lazy", decoding: "async",
        alt: textOf(item) || item.name,
      }));
    } else {
      box.append(make("p", {className: "why"}, item.problem || "No image"));
    }
    return box;
  }

  /* The caption as it is written, each word of it a button where something is known of it. */
  function captionOf(item, box) {
    const text = textOf(item), line = make("p", {className: "caption"});
    if (text !== null) Object.assign(line, written(item.language));
    if (text === null) {
      line.append(item.error === null
        ? make("span", {className: "none"}, "not sure enough for a caption")
        : make("span", {className: "error"}, item.error));
      return line;
    }
    if (edits.has(item.key) || !item.levels) { line.append(text); return line; }
    const lower = text.toLowerCase();
    let at = 0;
    item.words.forEach((word, place) => {
      const found = lower.indexOf(word, at);
      if (found < 0) return;
      line.append(text.slice(at, found));
      const part = button(text.slice(found, found + word.length), () => {
        const on = part.getAttribute("aria-pressed") !== "true";
        for (const each of line.children) each.setAttribute("aria-pressed", "false");
        part.setAttribute("aria-pressed", String(on));
        showHeat(box, item, on ? place : null);
        part.title = said(item, place);
        if (on) say(said(item, place));
      }, {className: "word", tabIndex: -1, "aria-pressed": "false", title: said(item, place)});
      line.append(part);
      at = found + word.length;
    });
    line.append(text.slice(at));
    return line;
  }

  function meterOf(item) {
    const bar = make("span"), line = make("div", {className: "sure"});
    if (item.sure !== null) {
      bar.style.width = `${100 * item.sure}%`;
      line.append(make("div", {
        className: "meter", role: "meter", "aria-label": "Confidence", "aria-valuemin": 0,
        "aria-valuemax": 100, "aria-valuenow": Math.round(100 * item.sure),
      }, bar), make("span", {className: "number", title: "Confidence"}, percent(item.sure)));
      if (!item.calibrated) {
        line.append(make("abbr", {
          title: "Not calibrated: the geometric mean of the words' probabilities",
        }, "*"));
      }
    }
    if (isUnsure(item)) line.append(make("span", {className: "doubt"}, "unsure"));
    if (edits.has(item.key)) line.append(make("span", {className: "edited"}, "edited"));
    return line;
  }

  function tagsOf(item) {
    const line = make("ul", {className: "tags", "aria-label": "Tags"});
    for (const each of item.tags) {
      const sure = share(each.confidence);
      line.append(make("li", null, button(
        make("span", {className: "tag-name"}, each.name),
        () => { details.close(); tag.value = each.name; filter(); },
        {className: "tag", tabIndex: -1, title: `Show all images with ${each.name}`},
      )));
      if (sure !== null) line.lastChild.firstChild.append(` `, make("span", null, percent(sure)));
    }
    return line;
  }

  function cardOf(item) {
    const id = `card-${item.place}`, box = imageOf(item);
    const caption = captionOf(item, box);
    caption.id = id;
    const others = make("ol", {className: "others", "aria-label": "Other captions"});
    const different = item.others.filter((each) => differs(textOf(item), each.text));
    for (const each of item.versions) {
      others.append(make("li", null, make("q", {title: each.text, ...written(each.language)}, each.text)));
    }
    for (const each of different.slice(0, 2)) {
      others.append(make("li", null, make("q", {title: each.text, ...written(item.language)}, each.text)));
    }
    const body = make("div", {className: "body"},
      make("p", {className: "name", title: item.name}, item.name), caption, meterOf(item),
      item.tags.length ? tagsOf(item) : null, others.childElementCount ? others : null);
    const actions = make("div", {className: "actions"},
      button("Details", () => openDetails(item)));
    if (item.error === null) {
      actions.append(button("Edit", () => startEdit(item, card)));
      if (textOf(item) !== null) actions.append(button("Copy", () => copy(textOf(item))));
    }
    const card = make("article", {
      className: isUnsure(item) ? "card unsure" : "card", tabIndex: item === active ? 0 : -1, "aria-labelledby": id,
    }, box, body, actions);
    card.item = item;
    reach(card, item === active);
    box.addEventListener("click", () => openDetails(item));
    card.addEventListener("focusin", () => activate(item));
    return card;
  }

  /* One card at a time is on the way of the Tab key, with its buttons. */
  function reach(card, is) {
    card.tabIndex = is ? 0 : -1;
    for (const each of card.querySelectorAll(".actions button")) each.tabIndex = is ? 0 : -1;
  }
  function activate(item) {
    if (active === item) return;
    const before = active && cards.get(active);
    active = item;
    if (before) reach(before, false);
    reach(cards.get(item), true);
  }
  function go(place) {
    const end = Math.min(shown.length, most);
    if (!end) return;
    const to = Math.max(0, Math.min(end - 1, place));
    const before = active && cards.get(active);
    if (before) reach(before, false);
    active = shown[to];
    const top = feed.getBoundingClientRect().top + Math.floor(to / columns) * rowHeight;
    const under = getComputedStyle(document.querySelector(".tools")).position === "sticky"
      ? document.querySelector(".tools").offsetHeight : 0;
    if (top < under + gap) scrollBy(0, top - under - gap);
    else if (top + rowHeight > innerHeight) scrollBy(0, top + rowHeight - innerHeight);
    draw();
    reach(cards.get(active), true);
    cards.get(active).focus({preventScroll: true});
  }

  /* --- correcting --------------------------------------------------------------------- */

  function startEdit(item, host) {
    const line = host.querySelector(".caption");
    if (item.error !== null || !line || host.querySelector("textarea")) return;
    const field = make("textarea", {
      value: textOf(item) || "", "aria-label": "Caption", ...written(item.language),
    });
    const box = make("div", {className: "editor"}, field,
      make("small", null, "Enter keeps it, Esc does not"));
    let over = false;
    const end = (text) => {
      if (over) return;
      over = true;
      if (text === null || text.trim() === (textOf(item) || "")) refresh(item);
      else edit(item, text);
    };
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.isComposing) return;
      if (event.key === "Enter") { event.preventDefault(); end(field.value); }
      if (event.key === "Escape") { event.preventDefault(); end(null); }
    });
    field.addEventListener("blur", () => end(field.value));
    line.replaceWith(box);
    field.focus();
    field.select();
  }

  /* --- where the captioner looked ------------------------------------------------------ */

  function levelsOf(item) {
    item.bytes ??= Uint8Array.from(atob(item.levels), (char) => char.charCodeAt(0));
    return item.bytes;
  }
  function weights(item, place) {
    const cells = data.grid[0] * data.grid[1];
    return levelsOf(item).subarray(place * cells, (place + 1) * cells);
  }

  function said(item, place) {
    const sure = item.probs[place];
    const known = sure === null || sure === undefined ? "not a word of the model" : percent(sure);
    return `“${item.words[place]}”: ${known}`;
  }
  function where(item, place) {
    const [rows, columns] = data.grid, all = weights(item, place);
    const at = all.indexOf(255);
    const third = (part, names) => names[Math.min(2, Math.floor(3 * part))];
    const y = third((Math.floor(at / columns) + 0.5) / rows, ["top", "middle", "bottom"]);
    const x = third(((at % columns) + 0.5) / columns, ["left", "centre", "right"]);
    return y === "middle" && x === "centre" ? "in the centre" : `at the ${y} ${x}`;
  }

  const RAMP = [[6, 6, 20, 175], [96, 20, 110, 150], [232, 84, 48, 140], [255, 232, 120, 190]];
  function colour(value, into, at) {
    const along = value * (RAMP.length - 1), low = Math.min(RAMP.length - 2, Math.floor(along));
    for (let channel = 0; channel < 4; channel++) {
      into[at + channel] = RAMP[low][channel] +
        (along - low) * (RAMP[low + 1][channel] - RAMP[low][channel]);
    }
  }
  function smooth(values, rows, columns, y, x) {  /* bilinear, between the cells' middles */
    const clamp = (at, end) => Math.max(0, Math.min(end - 1, at));
    const top = Math.floor(y), left = Math.floor(x), dy = y - top, dx = x - left;
    const cell = (r, c) => values[clamp(r, rows) * columns + clamp(c, columns)];
    return (cell(top, left) * (1 - dx) + cell(top, left + 1) * dx) * (1 - dy) +
      (cell(top + 1, left) * (1 - dx) + cell(top + 1, left + 1) * dx) * dy;
  }
  function showHeat(box, item, place) {
    box.querySelector(".heat")?.remove();
    const image = box.querySelector("img");
    if (place === null || !item.levels || !image || !image.naturalWidth) return;
    const size = 160, [rows, columns] = data.grid, values = weights(item, place);
    const canvas = make("canvas", {
      className: "heat", width: size, height: size, role: "img",
      "aria-label": `Where the captioner looked for ${said(item, place)}`,
    });
    const context = canvas.getContext("2d"), pixels = context.createImageData(size, size);
    const [left, top, width, height] = item.window;
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) {
        const v = ((i + 0.5) / size - top) / height, u = ((j + 0.5) / size - left) / width;
        const inside = u >= 0 && u <= 1 && v >= 0 && v <= 1;
        const value = inside ? smooth(values, rows, columns, v * rows - 0.5, u * columns - 0.5) : 0;
        colour(value / 255, pixels.data, 4 * (i * size + j));
      }
    }
    context.putImageData(pixels, 0, 0);
    /* Over the image itself, which is fitted into its box, or fills it. */
    const fills = getComputedStyle(image).objectFit === "cover";
    const scale = (fills ? Math.max : Math.min)(
      box.clientWidth / image.naturalWidth, box.clientHeight / image.naturalHeight);
    const w = image.naturalWidth * scale, h = image.naturalHeight * scale;
    canvas.style.left = `${(box.clientWidth - w) / 2}px`;
    canvas.style.top = `${(box.clientHeight - h) * (fills ? 0.25 : 0.5)}px`;
    canvas.style.width = `${w}px`;
    canvas.style.height = `${h}px`;
    box.append(canvas);
  }

  /* --- details ------------------------------------------------------------------------- */

  const details = $("details");
  let opened = null;

  function wordsOf(item, box, note) {
    const line = make("ul", {className: "words", ...written(item.language)});
    item.words.forEach((word, place) => {
      const sure = item.probs[place];
      const part = button(word, () => {
        const on = part.getAttribute("aria-pressed") !== "true";
        for (const each of line.querySelectorAll("button")) each.setAttribute("aria-pressed", "false");
        part.setAttribute("aria-pressed", String(on));
        showHeat(box, item, on ? place : null);
        note.textContent = on && item.levels
          ? `${said(item, place)}. The captioner looked most ${where(item, place)}.` : "";
      }, {"aria-pressed": "false"});
      part.append(make("small", null, typeof sure === "number" ? percent(sure) : "–"));
      line.append(make("li", null, part));
    });
    return line;
  }

  function fillDetails(item) {
    const box = imageOf(item), changed = edits.has(item.key);
    const note = make("figcaption", {"aria-live": "polite"}, item.levels && !changed
      ? "Choose a word to see where the captioner looked when it said it." : "");
    const caption = make("p", {className: "caption"});
    if (textOf(item) !== null) {
      Object.assign(caption, written(item.language));
      caption.append(textOf(item));
    } else caption.append(captionOf(item, box).firstChild);
    const part = (title, ...inner) => make("section", null, make("h3", null, title), ...inner);
    const right = make("div", null,
      make("section", null, caption, meterOf(item)),
      changed && item.text !== null ? part("It was", make("p", written(item.language), item.text),
        button("Take it back", () => edit(item, item.text))) : null,
      item.words.length && !changed ? part("Word by word", wordsOf(item, box, note)) : null,
      item.tags.length ? part("Tags", tagsOf(item)) : null);
    for (const each of right.querySelectorAll(".tag")) each.tabIndex = 0;
    if (item.versions.length) {
      const versions = make("dl", {className: "versions"});
      for (const each of item.versions) {
        versions.append(make("dt", null, nameOf(each.language),
          each.sure === null ? null : ` ${percent(each.sure)}`),
        make("dd", written(each.language), each.text));
      }
      right.append(part("In other languages", versions));
    }
    if (item.others.length) {
      const others = make("ol", {className: "others"});
      for (const each of item.others) {
        others.append(make("li", null, make("q", written(item.language), each.text),
          /* Not how sure it is of the whole: that is measured for the best caption only. */
          each.perWord === null ? null : make("span", {title: "mean probability of its words"},
            `${percent(each.perWord)} a word`),
          item.error === null ? button("Use", () => edit(item, each.text),
            {"aria-label": `Use “${each.text}”`}) : null));
      }
      right.append(part("Other captions", others));
    }
    if (item.error === null) {
      right.append(make("div", {className: "actions"},
        button("Edit", () => startEdit(item, details)),
        textOf(item) === null ? null : button("Copy", () => copy(textOf(item)))));
    }
    details.replaceChildren(
      make("div", {className: "details-head"}, make("h2", {id: "details-name"}, item.name),
        button("Previous", () => step(-1)), button("Next", () => step(1)),
        button("Close", () => details.close(), {className: "main"})),
      make("div", {className: "columns"}, make("figure", null, box, note,
        item.file ? make("a", {href: item.file}, "Open the file") : null), right));
  }

  function openDetails(item) {
    opened = item;
    fillDetails(item);
    if (!details.open) details.showModal();
    details.scrollTop = 0;
    (details.querySelector(".words button") || details.querySelector(".main")).focus();
  }
  function step(by) {
    const to = shown[shown.indexOf(opened) + by];
    if (to) openDetails(to); else say(by > 0 ? "This is the last one" : "This is the first one");
  }
  details.addEventListener("click", (event) => { if (event.target === details) details.close(); });
  details.addEventListener("close", () => {
    const place = shown.indexOf(opened);
    if (place >= 0 && place < most) go(place);
  });
  details.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("textarea")) return;
    const steps = {j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (event.key === "e") { event.preventDefault(); startEdit(opened, details); return; }
    if (event.key === "c" && textOf(opened) !== null) { copy(textOf(opened)); return; }
    if (!steps) return;
    event.preventDefault();
    const words = [...details.querySelectorAll(".words button")];
    const at = words.indexOf(document.activeElement);
    /* The next word is on the left where a language is written from right to left. */
    const forward = at >= 0 && getComputedStyle(words[at]).direction === "rtl" ? -steps : steps;
    if (event.key.startsWith("Arrow") && at >= 0) words[at + forward]?.focus();
    else step(steps);
  });

  /* --- keys ------------------------------------------------------------------------------ */

  const help = $("help");
  $("keys").addEventListener("click", () => help.showModal());
  $("help-close").addEventListener("click", () => help.close());
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && search.value) { search.value = ""; filter(); event.preventDefault(); }
    if (event.key === "Enter" || event.key === "ArrowDown") { event.preventDefault(); go(0); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || details.open || help.open) return;
    const target = event.target;
    if (target.matches("input, select, textarea")) return;
    if (event.key === "/") { event.preventDefault(); search.focus(); search.select(); return; }
    if (event.key === "?") { help.showModal(); return; }
    const card = target.closest(".card"), at = shown.indexOf(active);
    const steps = {
      j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns,
    }[event.key];
    if (steps && (card || target === document.body || target.id === "main")) {
      event.preventDefault();
      go(card ? at + steps : Math.max(0, at));
    } else if (card && event.key === "Home") { event.preventDefault(); go(0); }
    else if (card && event.key === "End") { event.preventDefault(); go(shown.length - 1); }
    else if (card && event.key === "Enter" && target === card) {
      event.preventDefault();  /* or the key would press the button that gets the focus */
      openDetails(active);
    }
    else if (card && event.key === "e") { event.preventDefault(); startEdit(active, card); }
    else if (card && event.key === "c" && textOf(active) !== null) copy(textOf(active));
  });

  /* --- saving ------------------------------------------------------------------------------ */

  const valid = (text) => text.replace(/\p{Surrogate}/gu,
    (half) => `\\u${half.charCodeAt(0).toString(16)}`);
  const corrected = (item) => ({...item.record, text: textOf(item)});
  function cell(value) {
    if (value === null || value === undefined) return "";
    let text = String(value);
    /* A spreadsheet would run these as formulas. */
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }
  $("save-jsonl").addEventListener("click", () => {
    /* With numbers that JavaScript would round, the record is only kept as its text. */
    const line = (item) => (item.around
      ? item.around.join(JSON.stringify(textOf(item))) : JSON.stringify(corrected(item)));
    const lines = items.map((item) => `${valid(line(item))}\n`);
    download(`${data.name}-corrected.jsonl`, lines.join(""), "application/jsonl");
    say(`${number.format(items.length)} records saved`);
  });
  $("save-csv").addEventListener("click", () => {
    const others = [...new Set(items.flatMap((item) => item.versions.map((each) => each.language)))];
    const names = ["file_name", ...(items.some((item) => item.language) ? ["language"] : []), "text",
      "confidence", ...others.flatMap((each) => [`text_${each}`, `confidence_${each}`]), "error"];
    function row(item) {
      const values = {...corrected(item)};
      for (const each of item.versions) {
        values[`text_${each.language}`] = each.text;
        values[`confidence_${each.language}`] = each.sure;
      }
      return names.map((name) => cell(values[name])).join(",");
    }
    const lines = [names.join(","), ...items.map(row)].map((line) => `${line}\r\n`);
    download(`${data.name}-corrected.csv`, valid(lines.join("")), "text/csv");
    say(`${number.format(items.length)} rows saved`);
  });

  filter();
})();
