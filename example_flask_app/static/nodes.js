// The page works without this file; it only looks again each second, as "Reload" does.
"use strict";

setInterval(async () => {
  let page;
  try {
    const answer = await fetch(location.href);
    if (!answer.ok) return;
    page = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return; // The demo has ended, or is about to be back.
  }
  const focused = document.activeElement?.id;
  document.getElementById("now").replaceWith(page.getElementById("now"));
  if (focused) document.getElementById(focused)?.focus();
}, 1000);
