"use strict";
// Runs in the head, before anything is painted: a remembered choice shows without a flash.
(() => {
  const KEY = "hrbp-report-theme";
  const root = document.documentElement;

  function apply(theme) {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  }

  // a browser may forbid storage to a page from disk: then the choice lasts as long as the page
  function remembered() {
    try { return localStorage.getItem(KEY); } catch { return null; }
  }

  function remember(theme) {
    try { localStorage.setItem(KEY, theme); } catch { /* see above */ }
  }

  apply(remembered());
  document.addEventListener("DOMContentLoaded", () => {
    const choice = document.getElementById("theme");
    choice.value = root.dataset.theme ?? "auto";
    choice.addEventListener("change", () => {
      apply(choice.value);
      remember(choice.value);
    });
    choice.closest("form").hidden = false;
  });
})();
