// @ts-check
/**
 * Keeps the page of listeners current, and adds the keyboard. Without it the page works, too:
 * its links and its form load it again.
 * The server renders all HTML. It sends updates over one stream of server-sent events:
 * elements by id, the order of the rows, and heartbeats.
 *
 * @typedef {{order: string[] | null, items: Record<string, string>}} ListUpdate
 * @typedef {{gathered: string, full?: boolean, whole?: boolean, closed?: string[],
 *   rows?: ListUpdate, events?: ListUpdate, parts?: Record<string, string>}} Update
 */

const keepClosed = 5 * 60_000; // milliseconds that the row of a closed listener stays
const maxClosed = 200; // rows of closed listeners
const silence = 45_000; // milliseconds without a message after which the connection is dead
const typingPause = 200; // milliseconds after the last key until a search begins

/** @param {string} id */
const byID = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const rows = document.getElementById("rows");
const search = /** @type {HTMLInputElement | null} */ (document.getElementById("q"));

/**
 * Returns the element that server-rendered HTML describes.
 * @param {string} html
 */
function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return /** @type {HTMLElement} */ (template.content.firstElementChild);
}

/**
 * Brings the children of an element up to date. Rows of closed listeners stay in their place.
 * @param {HTMLElement} list
 * @param {ListUpdate | undefined} update
 * @param {(id: string) => boolean} isClosed reports whether an element that leaves stays marked
 * @returns {HTMLElement[]} the new children
 */
function patch(list, update, isClosed) {
  if (!update) return [];
  /** @type {Map<string, HTMLElement>} */
  const added = new Map();
  for (const [id, html] of Object.entries(update.items)) {
    const old = document.getElementById(id);
    if (old) old.replaceWith(parse(html));
    else added.set(id, parse(html));
  }
  if (!update.order) return [];
  const stay = new Set(update.order);
  const where = (/** @type {Element} */ row) => row.firstElementChild?.textContent; // address and namespace
  const open = new Set(update.order.map((id) => where(added.get(id) ?? byID(id)))); // by another owner, too
  for (const child of /** @type {HTMLElement[]} */ ([...list.children])) {
    if (stay.has(child.id) || child.dataset.closed) continue;
    if (isClosed(child.id) && !open.has(where(child))) child.dataset.closed = String(Date.now());
    else child.remove();
  }
  let next = /** @type {HTMLElement | null} */ (list.firstElementChild);
  for (const id of update.order) {
    const child = added.get(id) ?? document.getElementById(id);
    while (next?.dataset.closed) next = /** @type {HTMLElement | null} */ (next.nextElementSibling);
    if (next === child) next = /** @type {HTMLElement | null} */ (next?.nextElementSibling ?? null);
    else if (child) list.insertBefore(child, next);
  }
  return [...added.values()];
}

/**
 * Calls change, and gives the focus back to what had it: an element that is replaced or moved
 * loses it.
 * @param {() => void} change
 */
function keepFocus(change) {
  const focused = document.activeElement;
  const owner = focused?.closest("[id]");
  const selector = "a, button, summary";
  const index = owner ? [...owner.querySelectorAll(selector)].indexOf(/** @type {Element} */ (focused)) : -1;
  change();
  if (!owner || index < 0 || document.activeElement === focused) return;
  const again = document.getElementById(owner.id)?.querySelectorAll(selector)[index];
  if (again instanceof HTMLElement) again.focus({ preventScroll: true });
}

/**
 * Returns the update that has the effect of two, one after the other.
 * @param {Update | null} first
 * @param {Update} second
 * @returns {Update}
 */
function merge(first, second) {
  if (!first || second.full) return second;
  return {
    ...second,
    full: first.full,
    closed: [...(first.closed ?? []), ...(second.closed ?? [])].filter((id) => document.getElementById(id)),
    rows: mergeLists(first.rows, second.rows),
    events: mergeLists(first.events, second.events),
    parts: { ...first.parts, ...second.parts },
  };
}

/**
 * @param {ListUpdate | undefined} first
 * @param {ListUpdate | undefined} second
 */
function mergeLists(first, second) {
  if (!first || !second) return second ?? first;
  const order = second.order ?? first.order;
  const items = { ...first.items, ...second.items };
  if (order) {
    const stay = new Set(order);
    for (const id of Object.keys(items)) if (!stay.has(id)) delete items[id];
  }
  return { order, items };
}

/** Marks show what opened, closed or changed since the page was opened or they were cleared. */
class Marks {
  since = 0; // Unix time of the host, in whole seconds as the rows have it
  latest = 0;
  /** @type {Map<string, number>} the rows that were there, and when they had changed */
  before = new Map();

  /** @param {HTMLElement} table */
  constructor(table) {
    this.table = table;
    this.button = byID("clear");
    this.button.addEventListener("click", () => this.clear());
  }

  rows = () => /** @type {HTMLElement[]} */ ([...this.table.children]);

  /**
   * Marks the rows as of a gather, and returns how many have each mark.
   * @param {string} gathered
   */
  show(gathered) {
    this.latest = Math.max(0, Math.floor(Date.parse(gathered) / 1000)); // 0: not yet
    if (!this.since) this.begin();
    const counts = { opened: 0, changed: 0, closed: 0 };
    for (const row of this.rows()) {
      /** @type {"" | keyof typeof counts} */
      let mark = "";
      if (row.dataset.closed) {
        if (Date.now() - Number(row.dataset.closed) < keepClosed && counts.closed < maxClosed) mark = "closed";
        else keepFocus(() => row.remove());
      } else if (changeTime(row) >= this.since && this.before.get(row.id) !== changeTime(row)) {
        mark = Number(row.dataset.since) >= this.since && !this.before.has(row.id) ? "opened" : "changed";
      }
      if (mark) counts[mark]++;
      if ((row.dataset.mark ?? "") !== mark) row.dataset.mark = mark;
    }
    const text = Object.entries(counts).filter(([, n]) => n).map(([mark, n]) => `${n} ${mark}`).join(", ");
    this.button.hidden = !text;
    this.button.textContent = `Clear marks: ${text}`;
    return text;
  }

  begin() {
    this.since = this.latest;
    this.before = new Map(this.rows().map((row) => [row.id, changeTime(row)]));
  }

  forgetClosed() {
    for (const row of this.rows()) if (row.dataset.closed) row.remove();
  }

  clear() {
    this.forgetClosed();
    for (const event of document.querySelectorAll("#events [data-mark]")) event.removeAttribute("data-mark");
    this.begin();
    this.show(new Date(this.latest * 1000).toISOString());
  }
}

/**
 * Returns when a listener was last opened or changed, in Unix time; 0 if that is not known.
 * @param {HTMLElement} row
 */
const changeTime = ({ dataset }) => Math.max(Number(dataset.since ?? 0), Number(dataset.changed ?? 0));

/** The connection to the server, and what the page does with its messages. */
class Live {
  /** @type {EventSource | null} */
  source = null;
  /** The query that the rows belong to, and the one that the stream is for. */
  shown = location.search;
  wanted = location.search;
  version = ""; // of what is shown; "": unknown
  paused = false;
  /** @type {Update | null} what was missed while paused */
  missed = null;
  heard = 0; // when the last message came
  asOf = (byID("static").textContent ?? "").replace("as of", ", as of"); // old data must not look current
  /** @type {number | undefined} */
  retry = undefined;

  /** @param {HTMLElement} table */
  constructor(table) {
    this.table = table;
    this.marks = new Marks(table);
    this.button = byID("pause");
    this.button.addEventListener("click", () => this.pause(!this.paused));
    byID("live").hidden = false;
    byID("static").hidden = true;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", (e) => e.persisted && this.open());
    setInterval(() => this.source && Date.now() - this.heard > silence && this.open(), 5_000);
    if (!document.hidden) this.open();
  }

  /** Connects for the query of the page's address. */
  open() {
    this.close();
    this.wanted = location.search;
    this.heard = Date.now();
    this.say("connecting", "connecting");
    const parameters = new URLSearchParams(this.wanted);
    if (this.version && this.wanted === this.shown) parameters.set("have", this.version);
    const source = new EventSource("/stream?" + parameters);
    source.addEventListener("update", (e) => this.receive(e.lastEventId, JSON.parse(e.data)));
    source.addEventListener("heartbeat", (e) => this.beat(e.data));
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) this.refused();
      else this.say("connecting", "reconnecting");
    });
    this.source = source;
  }

  close() {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
  }

  /** Says why the server gives no stream, and tries again later. */
  async refused() {
    this.close();
    const status = await fetch("/stream", { method: "HEAD" }).then((r) => r.status, () => 0);
    if (this.source) return; // it was opened meanwhile
    if (status && this.wanted !== this.shown) location.reload(); // its address is the new one
    if (status === 503) this.say("off", "too many live pages", ", reload to update");
    else this.say("off", "disconnected");
    this.retry = setTimeout(() => document.hidden || this.open(), status === 503 ? 30_000 : 5_000);
  }

  /**
   * @param {string} version
   * @param {Update} update
   */
  receive(version, update) {
    this.version = version;
    if (this.paused && this.wanted === this.shown) {
      this.missed = merge(this.missed, update);
    } else {
      this.missed = null;
      this.apply(update);
    }
    this.beat(update.gathered);
  }

  /** @param {string} gathered */
  beat(gathered) {
    this.heard = Date.now();
    if (this.paused) return this.say("paused", "paused", this.missed ? ", changes are waiting" : "");
    this.marks.show(gathered);
    this.asOf = this.marks.latest ? `, as of ${gathered.slice(11, 19)}` : "";
    this.say("on", "live");
  }

  /** @param {boolean} paused */
  pause(paused) {
    this.paused = paused;
    this.button.textContent = paused ? "Resume" : "Pause";
    if (paused) return this.say("paused", "paused");
    if (this.missed) this.apply(this.missed);
    this.missed = null;
    this.open(); // the connection may have ended meanwhile
  }

  /** @param {Update} update */
  apply(update) {
    const sameQuery = this.wanted === this.shown;
    this.shown = this.wanted;
    if (!sameQuery) this.marks.forgetClosed();
    const closed = new Set(update.closed);
    const isClosed = (/** @type {string} */ id) => sameQuery && (update.full ? !!update.whole : closed.has(id));
    const before = this.marks.button.textContent;
    keepFocus(() => {
      for (const [id, html] of Object.entries(update.parts ?? {})) byID(id).replaceWith(parse(html));
      patch(this.table, update.rows, isClosed);
      const events = patch(byID("events"), update.events, () => false);
      if (!update.full) for (const e of events) e.dataset.mark = "new";
    });
    const after = this.marks.show(update.gathered);
    if (!sameQuery) byID("announce").textContent = byID("count").textContent;
    else if (this.marks.button.textContent !== before) byID("announce").textContent = after;
  }

  /**
   * @param {"on" | "off" | "connecting" | "paused"} state
   * @param {string} text
   */
  say(state, text, more = "") {
    byID("live").dataset.state = state;
    byID("state").textContent = text + this.asOf + more;
  }

  /**
   * Shows another query.
   * @param {string} query of the address
   * @param {boolean} replace the current entry of the history
   */
  go(query, replace) {
    history[replace ? "replaceState" : "pushState"](null, "", "/" + query);
    this.open();
  }
}

/**
 * Makes the search and the links of the table change it without loading the page again.
 * @param {Live} live
 * @param {HTMLInputElement} input
 */
function navigate(live, input) {
  let typing = false; // the current entry of the history is one of a search that is being typed
  /** @type {number | undefined} */
  let timer;
  const find = () => {
    clearTimeout(timer);
    const parameters = new URLSearchParams(location.search);
    if (input.value === (parameters.get("q") ?? "")) return;
    parameters.delete("from");
    if (input.value) parameters.set("q", input.value);
    else parameters.delete("q");
    live.go(parameters.size ? "?" + parameters : "", typing);
    typing = true;
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(find, typingPause);
  });
  input.form?.addEventListener("submit", (e) => {
    e.preventDefault();
    find();
    typing = false;
  });
  input.addEventListener("blur", () => (typing = false));
  const show = () => (input.value = new URLSearchParams(location.search).get("q") ?? "");
  addEventListener("popstate", () => {
    typing = false;
    show();
    live.open();
  });
  document.addEventListener("click", (e) => {
    const link = e.target instanceof Element && e.target.closest("a");
    if (!link || e.button || e.ctrlKey || e.metaKey || e.shiftKey || e.altKey) return;
    const address = new URL(link.href);
    if (address.origin !== location.origin || address.pathname !== "/" || address.hash || !link.closest("main")) return;
    e.preventDefault();
    typing = false;
    live.go(address.search, false);
    scrollTo(0, 0);
    show();
  });
}

/** "/" searches, arrows move through the rows, Enter opens one, Escape leaves it. */
function keyboard() {
  const links = () => /** @type {HTMLElement[]} */ ([...(rows?.querySelectorAll("tr td:first-child a") ?? [])]);
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.isComposing) return;
    if (e.key === "/" && !(e.target instanceof HTMLInputElement)) {
      if (!search) return location.assign(table());
      search.focus();
      search.select();
    } else if ((e.key === "ArrowDown" || e.key === "ArrowUp") && rows) {
      const all = links();
      const at = all.findIndex((link) => link.closest("tr")?.contains(document.activeElement));
      const visible = all.findIndex((link) => link.getBoundingClientRect().top >= 0);
      const to = at < 0 ? visible : at + (e.key === "ArrowDown" ? 1 : -1);
      if (at < 0 && (to < 0 || e.key === "ArrowUp")) return; // it scrolls
      (all[to] ?? (to < 0 ? search : all[at]))?.focus();
    } else if (e.key === "Escape") {
      if (!rows) return location.assign(table());
      if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
    } else return;
    e.preventDefault();
  });
}

/** The address of the table as it was last shown in this tab. */
const table = () => sessionStorage.getItem("table") ?? "/";

keyboard();
if (rows && search) {
  navigate(new Live(rows), search);
  addEventListener("pagehide", () => sessionStorage.setItem("table", location.href));
}
