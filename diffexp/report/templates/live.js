// The page of runs that are on their way: loads itself again, and stays where the reader is.

const IDLE = 3e3, IDLE_IN_FIELD = 15e3, SLOW = 30e3, SILENT = 12e4;
const live = { at: 0, paused: false, unreachable: false, key: `diffexp ${location.pathname}` };

/** An element as its nearest ancestor with an id, and its number among the elements there that can have the focus. */
const focusable = (root) => [root, ...$$("a[href], button, select, input, [tabindex]", root)];
function addressOf(element) {
  const root = element?.closest("[id]");
  return root ? [root.id, focusable(root).indexOf(element)] : null;
}
function elementAt([id, index]) {
  const root = document.getElementById(id);
  return root && focusable(root)[index];
}

/** Where the reader is, for the page after this one. */
function place() {
  return {
    paused: live.paused,
    scroll: [scrollX, scrollY],
    boxes: $$(".scroll").map((box) => [box.scrollLeft, box.scrollTop]),
    focus: addressOf(document.activeElement),
  };
}

function restore() {
  let kept;
  try {
    kept = JSON.parse(sessionStorage.getItem(live.key));
    sessionStorage.removeItem(live.key);
  } catch { /* a browser that keeps nothing begins at the top */ }
  if (!kept) return;
  live.paused = kept.paused;
  $$(".scroll").forEach((box, index) => { [box.scrollLeft, box.scrollTop] = kept.boxes[index] ?? [0, 0]; });
  if (kept.focus) elementAt(kept.focus)?.focus({ preventScroll: true });
  scrollTo({ left: kept.scroll[0], top: kept.scroll[1], behavior: "instant" });
}

function reload() {
  try {
    sessionStorage.setItem(live.key, JSON.stringify(place()));
    history.scrollRestoration = "manual";
  } catch { /* see restore */ }
  location.reload();
}

/** Whether a new page would take something from under the reader's hands. */
function busy() {
  const field = document.activeElement?.matches("input, select, textarea");
  return live.paused || document.hidden || Boolean($("dialog[open]")) || !getSelection().isCollapsed
    || Date.now() - live.at < (field ? IDLE_IN_FIELD : IDLE);
}

/** Whether there is a newer page; always true of a file, which a script may not read. */
async function changed(version) {
  if (!location.protocol.startsWith("http")) return true;
  try {
    const answer = await fetch(location.pathname, { method: "HEAD", cache: "no-store" });
    live.unreachable = !answer.ok;
    return answer.ok && (!version || answer.headers.get("ETag") !== `"${version}"`);
  } catch {
    live.unreachable = true;
    return false;
  }
}

function age(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

function setUpLive() {
  restore();
  const box = $("#live");
  if (!box) return;
  const { written, every, version, over } = box.dataset;
  const pause = $("#live-pause"), note = $("#live-age");
  const silent = () => Date.now() / 1e3 - written;
  const isLost = () => !version && silent() > Math.max(SILENT / 1e3, 4 * every);
  const tell = () => {
    const old = version ? "" : `Written ${age(silent())} ago`;
    const text = live.unreachable ? "The server does not answer: this is the last page it had."
      : isLost() ? `${old}: the sweep may have been killed.`
      : version ? (over === "true" ? "All runs shown have ended; new ones appear by themselves." : "Served live.") : `${old}; a newer page appears by itself.`;
    if (note.textContent !== text) note.textContent = text;
    pause.setAttribute("aria-pressed", String(live.paused));
  };
  pause.onclick = () => { live.paused = !live.paused; tell(); };
  for (const event of ["pointerdown", "pointermove", "keydown", "wheel", "touchmove", "input"]) {
    addEventListener(event, () => { live.at = Date.now(); }, { passive: true, capture: true });
  }
  const look = async () => {
    if (!busy() && await changed(version) && !busy()) return reload();
    tell();
    setTimeout(look, live.unreachable || isLost() ? SLOW : Math.max(1, every) * 1e3);
  };
  document.addEventListener("visibilitychange", () => { live.at = 0; });
  tell();
  setTimeout(look, Math.max(1, every) * 1e3);
  setInterval(tell, 5e3);
}

setUpLive();
