// The shop works without this file; it only makes the strip at the foot of the page answer.
"use strict";

const again = document.getElementById("again");
const strip = document.getElementById("status");

again.hidden = false;
again.addEventListener("click", async () => {
  again.disabled = true;
  try {
    const answer = await fetch(again.dataset.url, { method: "POST" });
    if (!answer.ok) throw new Error(answer.status);
    const status = await answer.json();
    for (const place of strip.querySelectorAll("[data-of]")) place.textContent = status[place.dataset.of];
    strip.dataset.instance = status.instance;
    strip.dataset.pid = status.pid;
    strip.classList.remove("lost");
  } catch {
    strip.classList.add("lost"); // That instance died while it answered; the next one will do.
  }
  again.disabled = false;
  again.focus();
});

// A page that the browser kept alive for its back button may show a session that has ended since.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
