"use strict";
// The page updates itself: it fetches itself anew and puts in what has changed. What is drawn is drawn by the bridge.
(() => {
  const EVERY_MS = 2000;
  const offline = document.getElementById("offline");
  const button = document.getElementById("pause");
  let paused = false;
  let answered = new Date();
  let timer = 0;

  const selected = (part) => {
    const selection = document.getSelection();
    return selection !== null && !selection.isCollapsed && selection.containsNode(part, true);
  };

  const take = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (next !== null && !part.isEqualNode(next) && !selected(part)) {
        part.replaceWith(document.importNode(next, true));
      }
    }
    document.title = fresh.title;
  };

  const update = async () => {
    window.clearTimeout(timer);
    if (!paused && !document.hidden) {
      try {
        // Without the login that the page's own address may hold, which fetch refuses.
        const answer = await fetch(location.origin + location.pathname, { cache: "no-store", signal: AbortSignal.timeout(5000) });
        if (!answer.ok) throw new Error(String(answer.status));
        take(await answer.text());
        answered = new Date();
        offline.hidden = true;
      } catch {
        offline.textContent = `The bridge has not answered since ${answered.toISOString().slice(11, 19)} UTC; what is shown is of then.`;
        offline.hidden = false;
      }
    }
    timer = window.setTimeout(update, EVERY_MS);
  };

  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Resume updates" : "Pause updates";
    button.setAttribute("aria-pressed", String(paused));
    update();
  });
  document.addEventListener("visibilitychange", update);
  timer = window.setTimeout(update, EVERY_MS);
})();
