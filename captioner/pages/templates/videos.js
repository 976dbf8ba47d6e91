/* All videos of a batch. `page` is in base.js. */
(() => {
  const {data, make, percent} = page;
  const $ = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en");
  const byName = new Intl.Collator(undefined, {numeric: true}).compare;
  const search = $("search"), sort = $("sort"), show = $("show");
  const AT_ONCE = 120, TAGS_AT_ONCE = 30, TAGS_OF_ONE = 5;

  const items = data.videos.map((given, place) => ({
    place,
    name: given.file_name, status: given.status, error: given.error || null,
    duration: given.duration_s ?? null, segments: given.segments ?? null,
    tags: given.tags || [], page: given.page || null, poster: given.poster || null,
  }));
  for (const item of items) {
    item.names = new Set(item.tags.map((tag) => tag.name));
    item.hay = [item.name, item.error || "", ...item.names].join("\n").toLowerCase();
  }

  function clock(time) {
    const whole = Math.round(time), pad = (value) => String(value).padStart(2, "0");
    const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    return `${hours ? `${hours}:${pad(minutes)}` : minutes}:${pad(whole % 60)}`;
  }

  /* --- which are shown ------------------------------------------------------------------ */

  const wanted = new Set();  /* tags that all shown videos have */
  const last = (value) => (value === null ? 1 : 0);
  const by = (key, sign) => (a, b) =>
    last(a[key]) - last(b[key]) || sign * (a[key] - b[key]) || a.place - b.place;
  const orders = {
    order: (a, b) => a.place - b.place,
    name: (a, b) => byName(a.name, b.name) || a.place - b.place,
    longest: by("duration", -1),
    shortest: by("duration", 1),
    segments: by("segments", -1),
  };
  let shown = [], drawn = 0, tagsShown = TAGS_AT_ONCE;

  function filter() {
    const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = items.filter((item) =>
      (show.value === "all" || item.status === show.value) &&
      [...wanted].every((name) => item.names.has(name)) &&
      terms.every((term) => item.hay.includes(term)));
    shown.sort(orders[sort.value]);
    const all = `${number.format(items.length)} video${items.length === 1 ? "" : "s"}`;
    $("count").textContent =
      shown.length === items.length ? all : `${number.format(shown.length)} of ${all}`;
    $("clear").hidden = !(search.value || wanted.size || show.value !== "all");
    $("nothing").hidden = shown.length > 0;
    $("videos").replaceChildren();
    drawn = 0;
    more();
    facets();
  }
  for (const field of [search, sort, show]) field.addEventListener("input", filter);
  $("clear").addEventListener("click", () => {
    search.value = "";
    show.value = "all";
    wanted.clear();
    filter();
    search.focus();
  });

  /* --- tags of all, with how many of the shown videos have them --------------------------- */

  function choose(name) {
    if (wanted.has(name)) wanted.delete(name); else wanted.add(name);
    filter();
  }
  function facets() {
    const focused = document.activeElement.closest && document.activeElement.closest("#tags button");
    const name = focused ? focused.dataset.name : null;
    const counts = new Map([...wanted].map((each) => [each, 0]));
    for (const item of shown) {
      for (const each of item.names) counts.set(each, (counts.get(each) || 0) + 1);
    }
    const sorted = [...counts].sort((a, b) =>
      wanted.has(b[0]) - wanted.has(a[0]) || b[1] - a[1] || byName(a[0], b[0]));
    $("tags").replaceChildren(...sorted.slice(0, Math.max(tagsShown, wanted.size)).map(([each, count]) => {
      const button = make("button", {
        type: "button", "aria-pressed": String(wanted.has(each)),
      }, make("span", null, each), " ", make("span", {className: "of"}, number.format(count)));
      button.dataset.name = each;
      button.addEventListener("click", () => choose(each));
      return make("li", null, button);
    }));
    $("more-tags").hidden = sorted.length <= tagsShown;
    if (name !== null) {
      const again = [...$("tags").querySelectorAll("button")].find((each) => each.dataset.name === name);
      if (again) again.focus();
    }
  }
  $("more-tags").addEventListener("click", () => { tagsShown *= 4; facets(); });
  const narrow = matchMedia("(max-width: 42rem)");
  function fold() {
    $("facets").open = !narrow.matches;
    /* On a wide window it cannot be closed: then the Tab key does not stop there either. */
    $("facets").querySelector("summary").tabIndex = narrow.matches ? 0 : -1;
  }
  narrow.addEventListener("change", fold);
  fold();

  /* --- the videos: some at once, more when the end is in sight ----------------------------- */

  function cardOf(item) {
    const poster = make("div", {className: "poster"}, item.poster
      ? make("img", {src: item.poster, alt: "", loading: "lazy", decoding: "async"})
      : make("p", {className: "none"}, item.status === "failed" ? "could not be read" : "no image"));
    if (item.duration !== null) poster.append(make("span", {className: "length"}, clock(item.duration)));
    const name = make("h2", {className: "name"},
      item.page ? make("a", {href: item.page}, item.name) : item.name);
    const body = make("div", {className: "body"}, name);
    if (item.error) {
      const part = item.status === "partial" ? "only a part: " : "";
      body.append(make("p", {className: "error"}, part + item.error));
    }
    if (item.segments !== null) {
      const what = `${number.format(item.segments)} segment${item.segments === 1 ? "" : "s"}`;
      body.append(make("p", {className: "about"}, item.page ? what : `${what} · no page`));
    }
    if (item.tags.length) {
      const line = make("ul", {className: "tags", "aria-label": "Tags"});
      for (const tag of item.tags.slice(0, TAGS_OF_ONE)) {
        const button = make("button", {
          type: "button", tabIndex: -1, "aria-pressed": String(wanted.has(tag.name)),
          title: `${percent(tag.coverage)} of the time, ${percent(tag.confidence)} sure; ` +
            `a click shows all videos with ${tag.name}`,
        }, tag.name);
        button.addEventListener("click", () => choose(tag.name));
        line.append(make("li", null, button));
      }
      if (item.tags.length > TAGS_OF_ONE) {
        line.append(make("li", {className: "none"}, `+${item.tags.length - TAGS_OF_ONE}`));
      }
      body.append(line);
    }
    return make("li", {className: "video"}, poster, body);
  }
  function more() {
    $("videos").append(...shown.slice(drawn, drawn + AT_ONCE).map(cardOf));
    drawn = Math.min(drawn + AT_ONCE, shown.length);
    $("more").hidden = drawn >= shown.length;
  }
  $("more").addEventListener("click", more);
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && drawn < shown.length) more();
  }, {rootMargin: "600px"}).observe($("more"));

  /* --- keys -------------------------------------------------------------------------------- */

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    if (target === search) {
      if (event.key === "Escape") { search.value = ""; filter(); search.blur(); }
      return;
    }
    if (target.tagName === "SELECT") return;
    if (event.key === "/") { event.preventDefault(); search.focus(); search.select(); return; }
    const step = {j: 1, k: -1}[event.key];
    if (!step) return;
    const links = [...$("videos").querySelectorAll(".name a")];
    const at = links.indexOf(document.activeElement);
    const next = links[at < 0 ? 0 : at + step];
    if (next) { event.preventDefault(); next.focus(); }
  });

  filter();
})();
