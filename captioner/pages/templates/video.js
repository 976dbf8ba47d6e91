/* A video: player, timeline, transcript. `page` is in base.js. */
(() => {
  const {data, make, written, nameOf, say, copy, percent, recall, remember} = page;
  const $ = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en");
  const video = $("video"), rows = $("rows"), lanes = $("lanes"), search = $("search");

  /* The page is in one language at a time, which its address says: choosing another loads it again. */
  const asked = new URLSearchParams(location.hash.slice(1));
  const known = Object.keys(data.languages || {});
  const language = known.includes(asked.get("lang")) ? asked.get("lang") : data.language || null;
  function inLanguage(segment) {
    const other = language === data.language ? null : (segment.other_languages || {})[language];
    return other ? {...segment, ...other} : segment;
  }
  const segments = data.segments.map((each, place) => ({...inLanguage(each), place}));
  /* Neighbours with one caption share a line of the transcript, whatever cuts are between them. */
  const passages = [];
  for (const each of segments) {
    const last = passages[passages.length - 1];
    if (last && last.text === each.text && last.end === each.start) {
      const length = last.end - last.start, more = each.end - each.start;
      if (length + more > 0) {
        last.confidence = (last.confidence * length + each.confidence * more) / (length + more);
      }
      last.end = each.end;
      last.parts.push(each);
      const names = new Set(last.tags.map((tag) => tag.name));
      last.tags = [...last.tags, ...each.tags.filter((tag) => !names.has(tag.name))];
    } else {
      passages.push({...each, parts: [each]});
    }
    each.passage = passages[passages.length - 1];
  }
  const tags = data.tags;
  const end = Math.max(data.video.duration_s, 0.001, ...segments.slice(-1).map((each) => each.end));

  function clock(time) {
    const tenths = Math.round(10 * time), minutes = Math.floor(tenths / 600);
    const pad = (value) => String(value).padStart(2, "0");
    const front = minutes >= 60 ? `${Math.floor(minutes / 60)}:${pad(minutes % 60)}` : minutes;
    return `${front}:${pad(Math.floor(tenths / 10) % 60)}.${tenths % 10}`;
  }
  const floor = data.unsure_below || 0;
  const isUnsure = (part) => part.text !== null && part.confidence < floor;
  const said = (part) => (part.text === null ? "Nothing to see" : part.text);
  const saidIn = (part) => (part.text === null ? {} : written(language));
  const kindOf = (part) => (part.text === null ? "nothing" : isUnsure(part) ? "unsure" : "");
  const range = (part) => `${clock(part.start)} to ${clock(part.end)}`;
  const meaning = data.calibrated === false ? " (not calibrated)" : "";
  const sure = (part) => `${percent(part.confidence)} sure${meaning}`;
  const aside = (part) => (part.text === null ? "" : ` · ${sure(part)}`) + (isUnsure(part) ? " · unsure" : "");

  /* The last part that starts no later, if it has not ended; parts are in the order of time. */
  function partAt(parts, time) {
    let low = 0, high = parts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (parts[middle].start <= time) low = middle + 1; else high = middle;
    }
    return low && time < parts[low - 1].end ? parts[low - 1] : null;
  }

  /* --- the player: where it cannot play, the time is kept here all the same ---------------- */

  let now = 0, plays = Boolean(data.src), current = null;

  function seek(time) {
    /* A time is rounded to milliseconds: a little later is not the frame before. */
    now = Math.min(Math.max(0, time + 0.001), end);
    if (plays) video.currentTime = now;
    update();
  }
  function trouble(text) {
    $("trouble").replaceChildren(text);
    if (data.src) $("trouble").append(" ", make("a", {href: data.src}, "Open the file itself"));
    $("trouble").hidden = false;
    video.hidden = true;
    plays = false;
    $("captions").hidden = true;
    update();
  }
  video.addEventListener("error", () => trouble(
    "The video cannot be played here: it is no longer where it was, or this browser cannot play " +
    "its format. The timeline and the transcript work without it."));
  video.addEventListener("loadedmetadata", () => {
    if (!video.videoWidth) trouble("This browser cannot show the frames of this video. " +
      "The timeline and the transcript work without it.");
  });
  for (const name of ["timeupdate", "seeking", "seeked", "loadeddata"]) {
    video.addEventListener(name, () => { if (plays) { now = video.currentTime; update(); } });
  }
  video.addEventListener("play", () => {
    function frame() {
      if (video.paused || !plays) return;
      now = video.currentTime;
      update();
      requestAnimationFrame(frame);
    }
    frame();
  });

  /* A <track> out of a file would be refused: this one is made of the data. */
  const track = video.addTextTrack("captions", "What it shows", language || "en");
  const cueText = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  for (const each of passages) {
    const isSaid = each.text !== null && !isUnsure(each);
    if (isSaid && each.end > each.start) track.addCue(new VTTCue(each.start, each.end, cueText(each.text)));
  }
  function showCaptions(on) {
    track.mode = on ? "showing" : "hidden";
    $("captions").setAttribute("aria-pressed", String(on));
  }
  const asKept = () => showCaptions(recall("captioner.captions") !== "off");
  asKept();
  /* Browsers choose tracks by their own settings while a video loads. */
  video.addEventListener("loadedmetadata", asKept);
  $("captions").addEventListener("click", () => {
    const on = track.mode !== "showing";
    showCaptions(on);
    remember("captioner.captions", on ? null : "off");
  });
  video.textTracks.addEventListener("change", () => {
    $("captions").setAttribute("aria-pressed", String(track.mode === "showing"));
  });

  /* --- images: each when it comes into sight --------------------------------------------- */

  const sights = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      entry.target.src = `data:image/jpeg;base64,${data.thumbnails[entry.target.dataset.place]}`;
      sights.unobserve(entry.target);
    }
  }, {rootMargin: "300px"});
  function imageOf(segment) {
    if (!data.thumbnails[segment.place]) return null;
    const image = make("img", {alt: "", decoding: "async"});
    image.dataset.place = segment.place;
    sights.observe(image);
    return image;
  }

  /* --- the timeline ------------------------------------------------------------------------ */

  const sheet = make("div", {className: "sheet"});
  const share = (time) => `${100 * Math.min(time, end) / end}%`;
  const buttons = [];  /* lane by lane, for the arrow keys */

  function place(element, part) {
    element.style.left = share(part.start);
    element.style.width = `calc(${100 * (Math.min(part.end, end) - part.start) / end}% - 1px)`;
    return element;
  }
  function lane(kind, label, name) {
    const strip = make("div", {className: "track"});
    strip.addEventListener("click", (event) => {
      if (event.target !== strip) return;
      const box = strip.getBoundingClientRect();
      seek(end * (event.clientX - box.left) / box.width);
    });
    const whole = make("div", {className: `lane ${kind}`, role: "group", "aria-label": name}, label, strip);
    sheet.append(whole);
    return strip;
  }
  const title = (text) => make("div", {className: "label"}, make("span", null, text));

  const axis = lane("axis", title(""), "Time");
  const shots = lane("shots", title("Shots"), `${number.format(data.shots.length)} shots`);
  for (const each of data.shots) {
    shots.append(place(make("div", {className: "shot", title: range(each)}), each));
  }
  const blocks = lane("segments", title("Segments"), "Segments");
  for (const each of segments) {
    each.block = place(make("button", {
      type: "button", tabIndex: -1, className: kindOf(each),
      title: `${range(each)}${aside(each)}\n${said(each)}`,
      "aria-label": `${range(each)}: ${said(each)}`,
    }, imageOf(each), make("span", {className: "what", "aria-hidden": "true"},
      make("span", saidIn(each), said(each)))), each);
    each.block.addEventListener("click", () => seek(each.start));
    blocks.append(each.block);
  }
  buttons.push(segments.map((each) => each.block));

  for (const tag of tags) {
    const label = make("button", {
      type: "button", className: "label", title: `${tag.name}, ${tag.type}: ${sure(tag)}, ` +
        `${percent(tag.coverage)} of the time; a click shows where it begins`,
    }, make("span", null, tag.name), make("span", {className: "unseen"}, `, ${tag.type}, `),
    make("span", {className: "share"}, percent(tag.coverage),
      make("span", {className: "unseen"}, " of the time")));
    label.addEventListener("click", () => seek(tag.segments[0].start));
    const strip = lane("tag-lane", label, `${tag.name}, ${tag.type}`);
    tag.lane = strip.parentNode;
    for (const span of tag.segments) {
      span.button = place(make("button", {
        type: "button", tabIndex: -1, className: "span",
        title: `${tag.name}, ${range(span)}, ${sure(span)}`,
        "aria-label": `${tag.name}, ${range(span)}, ${sure(span)}`,
      }, make("span", null, percent(span.confidence))), span);
      span.button.style.setProperty("--sure", span.confidence);
      span.button.addEventListener("click", () => seek(span.start));
      strip.append(span.button);
    }
    buttons.push(tag.segments.map((span) => span.button));
  }
  if (!tags.length) sheet.append(make("p", {className: "none"}, "No tags."));
  const playhead = make("span");
  sheet.append(make("div", {id: "playhead"}, playhead));
  lanes.append(sheet);

  /* One button of each lane is on the way of the Tab key. */
  for (const each of buttons) if (each.length) each[0].tabIndex = 0;
  function focusIn(line, element) {
    for (const each of line) each.tabIndex = -1;
    element.tabIndex = 0;
    element.focus();
  }
  const middleOf = (element) => {
    const box = element.getBoundingClientRect();
    return box.left + box.width / 2;
  };
  lanes.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const row = buttons.findIndex((each) => each.includes(event.target));
    if (row < 0) return;
    const line = buttons[row], at = line.indexOf(event.target);
    const sideways = {ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: line.length - 1};
    let to = null, other = line;
    if (event.key in sideways) to = line[sideways[event.key]];
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      const step = event.key === "ArrowDown" ? 1 : -1;
      const isShown = (each) => each.length && each[0].offsetParent;
      let next = row + step;
      while (next >= 0 && next < buttons.length && !isShown(buttons[next])) next += step;
      other = buttons[next] || [];
      const x = middleOf(event.target);
      let least = Infinity;
      for (const each of other) {
        const distance = Math.abs(middleOf(each) - x);
        if (distance < least) { least = distance; to = each; }
      }
    } else return;
    event.preventDefault();
    event.stopPropagation();
    if (to) focusIn(other, to);
  });

  /* --- zoom ---------------------------------------------------------------------------------- */

  const WIDEST = 200000;  /* pixels */
  let zoom = 1, followed = 0;
  function labelWidth() { return axis.previousSibling.offsetWidth; }
  function room() { return Math.max(100, lanes.clientWidth - labelWidth()); }
  function draw() {
    const width = Math.min(WIDEST, room() * zoom);
    sheet.style.width = zoom > 1 ? `${labelWidth() + width}px` : "auto";
    const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200];
    const least = 75 * end / width;
    const step = steps.find((each) => each >= least) || 86400 * Math.ceil(least / 86400);
    const ticks = [];
    for (let time = 0; time < end; time += step) {
      /* No text where the end would cut it off. */
      const fits = width * (end - time) / end > 60 || time === 0;
      const tick = make("span", {className: "tick"}, fits ? clock(time).replace(/\.\d$/, "") : "");
      tick.style.left = share(time);
      ticks.push(tick);
    }
    axis.replaceChildren(...ticks);
    $("zoom-out").disabled = $("zoom-fit").disabled = zoom <= 1;
    $("zoom-in").disabled = room() * zoom >= WIDEST;
  }
  function setZoom(value) {
    /* What was at the playhead, or else in the middle, stays where it was. */
    const old = sheet.offsetWidth - labelWidth(), x = old * now / end - lanes.scrollLeft;
    const anchor = x >= 0 && x <= room() ? x : room() / 2;
    const time = (lanes.scrollLeft + anchor) / old;
    zoom = Math.min(Math.max(1, value), Math.max(1, WIDEST / room()));
    draw();
    lanes.scrollLeft = time * (sheet.offsetWidth - labelWidth()) - anchor;
    followed = performance.now();
  }
  $("zoom-in").addEventListener("click", () => setZoom(2 * zoom));
  $("zoom-out").addEventListener("click", () => setZoom(zoom / 2));
  $("zoom-fit").addEventListener("click", () => setZoom(1));
  new ResizeObserver(draw).observe(lanes);

  /* --- the transcript ------------------------------------------------------------------------ */

  let shown = passages, active = null;

  function hay(segment) {
    if (segment.hay === undefined) {
      const over = tags.filter((tag) => tag.segments.some(
        (span) => span.start < segment.end && span.end > segment.start));
      segment.hay = [segment.text || "", ...segment.tags.map((tag) => tag.name), ...over.map((tag) => tag.name)]
        .join("\n").toLowerCase();
    }
    return segment.hay;
  }
  function marked(text, terms) {
    const lower = text.toLowerCase(), parts = [];
    let at = 0;
    while (terms.length && lower.length === text.length) {
      let best = null;
      for (const term of terms) {
        const found = lower.indexOf(term, at);
        if (found >= 0 && (!best || found < best[0])) best = [found, term.length];
      }
      if (!best) break;
      parts.push(text.slice(at, best[0]), make("mark", null, text.slice(best[0], best[0] + best[1])));
      at = best[0] + best[1];
    }
    return [...parts, text.slice(at)];
  }
  function rowOf(segment) {
    segment.what = make("span", {className: "what", ...saidIn(segment)}, said(segment));
    segment.named = make("span", {className: "tags"}, segment.tags.map((tag) => tag.name).join(", "));
    const row = make("button", {type: "button", className: "row", tabIndex: -1},
      make("span", {className: "thumb"}, imageOf(segment)),
      make("span", {className: "when"}, `${clock(segment.start)} – ${clock(segment.end)}${aside(segment)}`),
      segment.what, segment.named);
    row.addEventListener("click", () => seek(segment.start));
    const copies = make("button", {
      type: "button", className: "copy", tabIndex: -1,
      "aria-label": `Copy the caption at ${clock(segment.start)}`,
    }, "Copy");
    copies.addEventListener("click", () => copy(segment.text));
    segment.row = make("li", {className: kindOf(segment)}, row, segment.text === null ? null : copies);
    segment.row.addEventListener("focusin", () => activate(segment));
    return segment.row;
  }
  rows.append(...passages.map(rowOf));
  const nothing = make("li", {className: "none", hidden: true}, "Nothing in this video matches.");
  rows.append(nothing);

  function activate(segment) {
    for (const [each, index] of [[active, -1], [segment, 0]]) {
      if (each) for (const button of each.row.children) button.tabIndex = index;
    }
    active = segment;
  }
  rows.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !active) return;
    const at = shown.indexOf(active), last = shown.length - 1;
    const to = {
      ArrowDown: Math.min(at + 1, last), ArrowUp: Math.max(at - 1, 0),
      PageDown: Math.min(at + 8, last), PageUp: Math.max(at - 8, 0), Home: 0, End: last,
    }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    shown[to].row.firstChild.focus();
  });

  const hider = $("unsure");
  let hides = recall("captioner.unsure") === "hidden";
  hider.hidden = !passages.some(isUnsure);
  hider.addEventListener("click", () => {
    hides = !hides;
    remember("captioner.unsure", hides ? "hidden" : null);
    filter();
  });

  function filter() {
    const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    hider.setAttribute("aria-pressed", String(hides));
    shown = passages.filter((each) => !(hides && isUnsure(each)) &&
      terms.every((term) => hay(each).includes(term)));
    const found = new Set(shown);
    for (const each of passages) {
      each.row.hidden = !found.has(each);
      for (const part of each.parts) part.block.classList.toggle("other", !found.has(each));
      if (terms.length || each.isMarked) {
        each.what.replaceChildren(...marked(said(each), terms));
        each.named.replaceChildren(...marked(each.tags.map((tag) => tag.name).join(", "), terms));
        each.isMarked = terms.length > 0;
      }
    }
    const named = (tag) => terms.some((term) => tag.name.toLowerCase().includes(term));
    const some = tags.some(named);
    for (const tag of tags) tag.lane.hidden = some && !named(tag);
    nothing.hidden = shown.length > 0 || !segments.length;
    const all = `${number.format(segments.length)} segment${segments.length === 1 ? "" : "s"}`;
    const those = shown.reduce((sum, each) => sum + each.parts.length, 0);
    $("count").textContent = terms.length || those < segments.length ? `${number.format(those)} of ${all}` : all;
    if (!found.has(active)) activate(shown[0] || null);
  }
  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && shown.length) { seek(shown[0].start); event.preventDefault(); }
    else if (event.key === "ArrowDown" && shown.length) {
      event.preventDefault();
      shown[0].row.firstChild.focus();
    }
  });
  $("copy").addEventListener("click", () => copy(
    shown.filter((each) => each.text !== null)
      .map((each) => `${clock(each.start)}\t${each.text}\n`).join("")));

  /* --- what is shown now --------------------------------------------------------------------- */

  let follows = true;
  $("follow").addEventListener("click", () => {
    follows = !follows;
    $("follow").setAttribute("aria-pressed", String(follows));
    if (follows) follow();
  });
  /* Only the list itself is moved, never the page under the reader's eyes. */
  function follow() {
    if (!follows || !current) return;
    const row = current.passage.row;
    if (!row.hidden && rows.scrollHeight > rows.clientHeight) {
      const top = row.offsetTop, bottom = top + row.offsetHeight;
      if (top < rows.scrollTop || bottom > rows.scrollTop + rows.clientHeight) {
        rows.scrollTop = top - rows.clientHeight / 3;
      }
    }
  }
  function followPlayhead() {
    if (!follows || zoom <= 1 || performance.now() - followed < 1000) return;
    const x = (sheet.offsetWidth - labelWidth()) * now / end;
    if (x < lanes.scrollLeft || x > lanes.scrollLeft + room()) {
      lanes.scrollLeft = x - room() / 4;
      followed = performance.now();
    }
  }
  for (const part of [rows, lanes]) {
    for (const name of ["wheel", "touchmove"]) {  /* Who looks elsewhere is left alone for a while. */
      part.addEventListener(name, () => { followed = performance.now() + 3000; }, {passive: true});
    }
  }
  function mark(segment, is) {
    const row = segment.passage.row;
    row.classList.toggle("current", is);
    segment.block.classList.toggle("current", is);
    for (const element of [row.firstChild, segment.block]) {
      if (is) element.setAttribute("aria-current", "true"); else element.removeAttribute("aria-current");
    }
  }
  function update() {
    playhead.style.left = share(now);
    $("now-time").textContent = clock(now);
    const next = partAt(segments, now) || (now >= end ? segments[segments.length - 1] : null) || null;
    if (next !== current) {
      if (current) mark(current, false);
      current = next;
      if (current) mark(current, true);
      $("now-text").textContent = current ? said(current) : "";
      $("now-text").removeAttribute("lang");
      Object.assign($("now-text"), {dir: ""}, current ? saidIn(current) : {});
      $("now-text").className = current ? kindOf(current.passage) : "";
      if (performance.now() > followed) follow();
    }
    for (const tag of tags) {
      const span = partAt(tag.segments, now);
      if (span === tag.current) continue;
      if (tag.current) tag.current.button.classList.remove("current");
      if (span) span.button.classList.add("current");
      tag.current = span;
    }
    if (!plays) {
      const image = current && data.thumbnails[current.place];
      $("still").hidden = !image;
      if (image) $("still").src = `data:image/jpeg;base64,${image}`;
    }
    followPlayhead();
  }
  function step(by) {
    const at = current ? current.place : -1;
    /* Back goes to the start of this segment first, unless that is where we are. */
    const to = by < 0 && current && now - current.start > 1 ? at : at + by;
    if (segments[to]) seek(segments[to].start);
  }
  $("before").addEventListener("click", () => step(-1));
  $("after").addEventListener("click", () => step(1));

  /* --- keys ---------------------------------------------------------------------------------- */

  const help = $("help");
  $("keys").addEventListener("click", () => help.showModal());
  $("help-close").addEventListener("click", () => help.close());
  const actions = {
    "/": () => { search.focus(); search.select(); },
    "?": () => help.showModal(),
    n: () => step(1),
    p: () => step(-1),
    c: () => $("captions").click(),
    f: () => $("follow").click(),
    "+": () => setZoom(2 * zoom),
    "=": () => setZoom(2 * zoom),
    "-": () => setZoom(zoom / 2),
    0: () => setZoom(1),
    k: toggle,
    " ": toggle,
    ArrowLeft: () => seek(now - 5),
    ArrowRight: () => seek(now + 5),
  };
  function toggle() {
    if (!plays) return;
    if (video.paused) video.play().catch(() => say("The video cannot be played")); else video.pause();
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const target = event.target;
    if (target === search) {
      if (event.key === "Escape") { search.value = ""; filter(); search.blur(); }
      return;
    }
    if (event.key === " " && target.closest("button, a")) return;  /* They take it themselves. */
    if (target === video && [" ", "ArrowLeft", "ArrowRight"].includes(event.key)) return;
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  for (const each of known) {
    const option = new Option(nameOf(each), each, false, each === language);
    $("language").append(Object.assign(option, written(each)));
  }
  $("language-field").hidden = known.length < 2;
  $("language").addEventListener("change", () => {
    location.hash = `t=${now.toFixed(3)}&lang=${$("language").value}`;
    location.reload();
  });

  filter();
  draw();
  /* So many segments that none could be hit: about two dozen of them in sight. */
  if (segments.length * 14 > room()) setZoom(segments.length * 28 / room());
  update();
  if (data.src) video.src = data.src;
  else trouble("This page does not know where the video is.");
  const wanted = /^\d+(?:\.\d+)?$/.exec(asked.get("t") || "");
  if (wanted) seek(Number(wanted[0]));
})();
