// Keeps the page live: after every event it fetches the board, which the server renders. No text is made here but
// what must be said when the server cannot be heard.
(() => {
  const el = (id) => document.getElementById(id);
  const live = el("live"), link = el("link"), lost = el("lost"), say = el("say"), icon = document.querySelector("link[rel=icon]");
  const colours = { ok: "%2315803d", warn: "%23b45309", bad: "%23b91c1c" };
  let busy = false, again = false, heard = Date.now(), said = "";

  const take = () => {
    const { title, say: words, level, at } = el("board").dataset;
    document.title = title;
    icon.href = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='7' fill='${colours[level]}'/></svg>`;
    link.textContent = `live, ${at}`;
    link.classList.add("on");
    if (words !== said) {
      if (said) say.textContent = words;
      said = words;
    }
  };

  const draw = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const reply = await fetch("/stats?fragment=1", { cache: "no-store", signal: AbortSignal.timeout(4000) });
      if (!reply.ok) throw new Error(reply.statusText);
      live.innerHTML = await reply.text();
      heard = Date.now();
      take();
    } catch { /* the watch below says so */ }
    busy = false;
    if (again) { again = false; draw(); }
  };

  const watch = () => {
    const silent = Date.now() - heard;
    if (silent > 3000) draw();
    const gone = silent > 6000;
    if (gone) lost.textContent = `pgpivot has not answered for ${Math.round(silent / 1000)} s. What you see is old.`;
    lost.hidden = !gone;
    live.classList.toggle("stale", gone);
    link.classList.toggle("on", !gone);
  };

  // An order: the server is asked what would happen, it is shown, and done only when that is confirmed.
  const box = el("order"), go = el("order-go"), note = el("order-note"), token = el("order-token"), failed = el("order-failed");
  let order = null, planned = false;

  const send = async (dry) => {
    const { service, backend, state } = order;
    const headers = { "Content-Type": "application/json" };
    if (token.value) headers.Authorization = `Bearer ${token.value}`;
    const body = JSON.stringify({ backend, state, reason: note.value });
    const to = `/failover/backend?service=${encodeURIComponent(service)}&dry_run=${dry}`;
    const reply = await fetch(to, { method: "POST", headers, body, signal: AbortSignal.timeout(15000) });
    const said = await reply.json();
    if (reply.status === 401) el("order-secret").hidden = false;
    if (!reply.ok) throw new Error(said.detail);
    return said;
  };

  const step = async () => {
    go.disabled = true;
    failed.textContent = "";
    try {
      const said = await send(!planned);
      if (planned) {
        box.close();
        draw();
      } else {
        planned = true;
        el("order-what").textContent = said.sentence;
        el("order-steps").replaceChildren(...said.steps.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
      }
    } catch (error) { failed.textContent = error.message; }
    go.disabled = false;
  };

  live.addEventListener("click", ({ target }) => {
    if (!target.matches("button[data-state]")) return;
    order = { ...target.dataset };
    planned = false;
    el("order-what").textContent = `${order.backend}: ${order.state}`;
    el("order-steps").replaceChildren();
    note.value = "";
    go.textContent = `Set to ${order.state}`;
    box.showModal();
    step();
  });
  go.addEventListener("click", step);
  // Return in a field confirms nothing.
  el("order-form").addEventListener("submit", (event) => event.preventDefault());
  el("order-leave").addEventListener("click", () => box.close());
  document.documentElement.classList.add("scripted");

  let source;
  const follow = () => {
    source = new EventSource("/events");
    source.addEventListener("status", draw);
    source.addEventListener("event", draw);
    // A refused stream is not tried again by the browser.
    source.addEventListener("error", () => { if (source.readyState === EventSource.CLOSED) setTimeout(follow, 5000); });
  };
  take();
  follow();
  setInterval(watch, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) draw(); });
})();
