"use strict";
/* What all pages share: `page.data`, elements from text, memory, downloads, the light. */
const page = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);

  /* Some browsers keep nothing for a page out of a file: it works all the same, until closed. */
  function recall(key) {
    try { return localStorage.getItem(key); } catch { return null; }
  }
  function remember(key, value) {
    try {
      if (value === null) localStorage.removeItem(key); else localStorage.setItem(key, value);
      return true;
    } catch { return false; }
  }

  /* make("p", {className: "a"}, "text", element): text is never read as HTML. */
  function make(tag, properties, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (name.includes("-") || name === "role") element.setAttribute(name, value);
      else element[name] = value;
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  /* Said by screen readers; the same text twice is said twice. */
  function say(text) {
    const live = document.getElementById("live");
    live.textContent = "";
    requestAnimationFrame(() => { live.textContent = text; });
  }

  function download(name, text, type) {
    const url = URL.createObjectURL(new Blob([text], {type: `${type};charset=utf-8`}));
    const link = make("a", {href: url, download: name});
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {  /* A page out of a file may not be let near it: then the old way. */
      const field = make("textarea", {value: text, className: "unseen", readOnly: true});
      const before = document.activeElement;
      (document.querySelector("dialog[open]") || document.body).append(field);
      field.select();
      const done = document.execCommand("copy");
      field.remove();
      if (before) before.focus();
      if (!done) { say("Cannot copy"); return false; }
    }
    say("Copied");
    return true;
  }

  /* How a text is written, as properties of its element. Of a language that is not known, the
     letters say the direction. */
  function written(language) {
    if (!language) return {dir: "auto"};
    const known = data && data.languages ? data.languages[language] : null;
    return {lang: language, dir: known ? known.direction : "auto"};
  }
  const nameOf = (language) => {
    const known = data && data.languages ? data.languages[language] : null;
    return known ? known.name : language;
  };

  const percent = (share) => `${Math.round(100 * share)}%`;

  const root = document.documentElement, button = document.getElementById("theme");
  function light(theme) {
    if (theme === "dark" || theme === "light") root.dataset.theme = theme;
    const dark = (root.dataset.theme ||
      (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    button.setAttribute("aria-pressed", String(dark));
    return dark;
  }
  light(recall("captioner.theme"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => light(null));
  button.addEventListener("click", () => {
    const theme = light(null) ? "light" : "dark";
    light(theme);
    remember("captioner.theme", theme);
  });

  return {data, make, written, nameOf, say, download, copy, percent, recall, remember};
})();
