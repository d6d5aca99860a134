// Light or dark, before anything is painted: the reader's choice if there is one, else what the system says.
// Not a module, because modules wait until the page has been read.
"use strict";

(() => {
  const NAME = "whence-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      return localStorage.getItem(NAME);
    } catch {
      return null; // the browser keeps nothing for this site
    }
  }

  function keep(theme) {
    try {
      if (theme === null) localStorage.removeItem(NAME);
      else localStorage.setItem(NAME, theme);
    } catch {
      // The choice then holds for this page.
    }
  }

  function isDark() {
    const theme = document.documentElement.dataset.theme;
    return theme ? theme === "dark" : system.matches;
  }

  function apply(theme) {
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));
  }

  function toggle() {
    const theme = isDark() ? "light" : "dark";
    const isSystems = (theme === "dark") === system.matches;
    keep(isSystems ? null : theme);
    apply(isSystems ? null : theme);
  }

  apply(chosen());
  system.addEventListener("change", () => apply(chosen()));
  addEventListener("storage", (event) => event.key === NAME && apply(event.newValue));
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", toggle);
    apply(chosen());
  });
})();
