// Shows the overview of the API and keeps it up to date. Every text from the API is written with textContent only.
"use strict";

const INTERVAL = 2000;
const TIMEOUT = 12000;
const numbers = new Intl.NumberFormat("en");
const find = (id) => document.getElementById(id);

let token = null; // only in memory, so that a reload forgets it
let timer = 0;
let polling = false;
let last = null;

// Formats

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.round(seconds);
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => whole >= size);
  if (first < 0) return "0 s";
  const rest = whole % parts[first][0];
  const text = `${numbers.format(Math.floor(whole / parts[first][0]))} ${parts[first][1]}`;
  const next = parts[first + 1];
  const more = next ? Math.floor(rest / next[0]) : 0;
  return more ? `${text} ${more} ${next[1]}` : text;
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return unit ? `${bytes.toFixed(1)} ${units[unit]}` : `${bytes} B`;
}

const count = (value) => (value === null || value === undefined ? "–" : numbers.format(value));
const time = (text) => (text ? `${text.slice(0, 10)} ${text.slice(11, 19)} UTC` : "–");
const clock = (text) => (text ? `${text.slice(11, 19)} UTC` : "–");
const since = (text, seconds) => (seconds < 86400 ? clock(text) : time(text));
const short = (text, most = 300) => (text && text.length > most ? `${text.slice(0, most)}…` : text || "");

function stageOf(item) {
  if (!item.live) return ["no worker", "its lease has expired"];
  return [item.stage || (item.rows ? "waiting" : "waiting for rows")];
}

// Tables: a column gives one or two texts for an item, or a button.

const FEW = 10;
const NAMES = {
  database: "Database", clickhouse: "ClickHouse", storage: "Storage", kafka: "Kafka", exports: "Exports",
  dependencies: "Dependencies", deadLetters: "Dead letters",
};
const nameOf = (key) => NAMES[key] || key;

const what = { title: "Export", give: (item) => [item.name || item.id, item.name ? item.id : ""], wide: true, name: true };
const project = { title: "Project", give: (item) => [item.projectId || "–"], id: true };
const table = { title: "Table", give: (item) => [item.table || "–", item.format || ""] };

const TABLES = {
  running: {
    items: (data) => data.running && data.running.exports,
    total: (data) => data.running.total,
    key: (item) => `${item.projectId} ${item.id}`,
    empty: "No exports are running.",
    unknown: "Running exports could not be read.",
    columns: [
      what, project, table,
      { title: "Rows", give: (item) => [count(item.rows), item.rowsPerSecond === null ? "" : `${count(Math.round(item.rowsPerSecond))} rows/s`], number: true },
      { title: "Written", give: (item) => [size(item.bytes)], number: true },
      { title: "Stage", give: (item) => stageOf(item), warn: (item) => !item.live },
      { title: "Running for", give: (item) => [duration(item.seconds), `since ${since(item.since, item.seconds)}`] },
      { title: "Attempt", give: (item) => [count(item.attempt)], number: true },
      { title: "Pod", give: (item) => [item.pod || "–"], id: true },
      { title: "Action", button: "Cancel", shown: () => true, act: askToCancel },
    ],
  },
  queue: {
    items: (data) => data.queue && data.queue.exports,
    total: (data) => data.queue.total,
    key: (item) => `${item.projectId} ${item.id}`,
    empty: "The queue is empty.",
    unknown: "The queue could not be read.",
    columns: [
      what, project, table,
      { title: "Waiting for", give: (item) => [duration(item.waitingSeconds), `since ${since(item.waitingSince, item.waitingSeconds)}`] },
      { title: "Attempts", give: (item) => [count(item.attempts), item.nextAttemptAt ? `next ${clock(item.nextAttemptAt)}` : ""] },
      { title: "Last error", give: (item) => [short(item.reason) || "–"], wide: true },
      { title: "Action", button: "Cancel", shown: () => true, act: askToCancel },
    ],
  },
  endings: {
    items: (data) => data.endings,
    total: (data) => data.endings.length,
    key: (item) => `${item.projectId} ${item.id} ${item.attempt}`,
    empty: "No exports have ended yet.",
    unknown: "Ended exports could not be read.",
    columns: [
      what, project, table,
      { title: "Outcome", give: (item) => [item.outcome], kind: (item) => item.outcome },
      { title: "Ended", give: (item) => [time(item.endedAt), item.seconds === null ? "" : `took ${duration(item.seconds)}`] },
      { title: "Rows", give: (item) => [count(item.rows)], number: true },
      { title: "Size", give: (item) => [size(item.bytes)], number: true },
      { title: "Reason", give: (item) => [short(item.reason) || "–", item.errorClass || ""], wide: true },
      { title: "Action", button: "Retry", shown: (item) => item.status === "FAILED" || item.status === "CANCELLED", act: retry },
    ],
  },
  notices: {
    items: (data) => data.notices && data.notices.notices,
    total: (data) => data.notices.total,
    key: (item) => `${item.projectId} ${item.id} ${item.channel} ${item.attempts}`,
    empty: "No notices are waiting.",
    unknown: "Notices could not be read.",
    columns: [
      { title: "Export", give: (item) => [item.id], wide: true, name: true },
      project,
      { title: "Channel", give: (item) => [item.channel, item.state] },
      { title: "Waiting for", give: (item) => [duration(item.waitingSeconds)] },
      { title: "Attempts", give: (item) => [count(item.attempts), item.nextAttemptAt ? `next ${clock(item.nextAttemptAt)}` : ""] },
      { title: "Last error", give: (item) => [short(item.reason) || "–"], wide: true },
    ],
  },
  "dead-letters": {
    items: (data) => data.deadLetters && data.deadLetters.messages,
    total: (data) => data.deadLetters.total,
    key: (item) => item.position,
    empty: "There are no dead letters.",
    unknown: "Dead letters could not be read.",
    columns: [
      { title: "Position", give: (item) => [item.position], name: true },
      { title: "Time", give: (item) => [time(item.time)] },
      { title: "Topic", give: (item) => [item.topic || "–"] },
      { title: "Key", give: (item) => [item.key || "–"], id: true },
      { title: "Reason", give: (item) => [short(item.reason) || "–", item.errorClass || ""], wide: true },
    ],
  },
};

function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "text") element.textContent = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// The roles are written out, because a table that is laid out as cards loses those of its elements.
function buildSection(id, definition) {
  const section = find(id);
  const heads = definition.columns.map((column) =>
    make("th", { scope: "col", role: "columnheader", class: column.button ? "action" : column.number ? "number" : "", text: column.title }));
  const body = make("tbody", { role: "rowgroup" });
  const head = make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads));
  const grid = make("table", { role: "table", "aria-labelledby": `${id}-title` }, head, body);
  const note = make("p", { class: "note" });
  const more = make("button", { type: "button", class: "more" });
  section.append(note, grid, more);
  Object.assign(definition, { section, grid, body, note, more, rows: new Map(), whole: false });
  more.addEventListener("click", () => {
    definition.whole = !definition.whole;
    fillSection(definition, last);
  });
}

function buildRow(definition) {
  const cells = definition.columns.map((column) => {
    const cell = make("td", { role: "cell", "data-label": column.title });
    if (column.number) cell.classList.add("number");
    for (const kind of ["wide", "id", "name"]) if (column[kind]) cell.classList.add(kind);
    if (column.button) {
      cell.classList.add("action");
      cell.append(make("button", { type: "button", text: column.button }));
    } else {
      cell.append(make("div", {}, make("span"), make("small")));
    }
    return cell;
  });
  const row = { element: make("tr", { role: "row" }, ...cells), cells, item: null };
  definition.columns.forEach((column, index) => {
    if (column.button) cells[index].firstChild.addEventListener("click", () => column.act(row.item, definition));
  });
  return row;
}

function fillRow(row, definition, item) {
  row.item = item;
  definition.columns.forEach((column, index) => {
    const cell = row.cells[index];
    if (column.button) {
      const button = cell.firstChild;
      button.hidden = token === null || !column.shown(item);
      const label = `${column.button} ${item.name || item.id}`;
      if (button.getAttribute("aria-label") !== label) button.setAttribute("aria-label", label);
      return;
    }
    const [first, second = ""] = column.give(item);
    const [main, more] = cell.firstChild.children;
    write(main, first);
    write(more, second);
    more.hidden = !second;
    if (column.kind) main.className = `pill ${column.kind(item)}`;
    if (column.warn) cell.classList.toggle("warn", column.warn(item));
  });
}

function fillSection(definition, data) {
  const items = definition.items(data);
  const { grid, body, note, more, rows } = definition;
  grid.hidden = !items || !items.length;
  if (!items) write(note, definition.unknown);
  else if (!items.length) write(note, definition.empty);
  else if (definition.total(data) > items.length) write(note, `${count(definition.total(data))} in total. This page lists the first ${count(items.length)}.`);
  else write(note, "");
  note.hidden = !note.textContent;
  more.hidden = !items || items.length <= FEW;
  write(more, definition.whole ? `Show only ${FEW}` : `Show ${count(items ? items.length : 0)}`);
  grid.classList.toggle("locked", token === null);
  const kept = new Set();
  (items || []).slice(0, definition.whole ? undefined : FEW).forEach((item, place) => {
    const key = definition.key(item);
    if (kept.has(key)) return;
    kept.add(key);
    if (!rows.has(key)) rows.set(key, buildRow(definition));
    const row = rows.get(key);
    fillRow(row, definition, item);
    // Only a row in the wrong place is moved: to move an element takes the focus from it.
    if (body.children[place] !== row.element) body.insertBefore(row.element, body.children[place] || null);
  });
  for (const [key, row] of rows) {
    if (kept.has(key)) continue;
    const focused = row.element.contains(document.activeElement);
    row.element.remove();
    rows.delete(key);
    if (focused) definition.section.querySelector("h2").focus();
  }
}

function showDependencies(data) {
  const list = find("dependencies");
  const entries = data.dependencies ? data.dependencies.map((each) => [nameOf(each.name), each.ok, each.detail]) : [];
  if (data.dependencies) entries.push(["Partitions", data.partitions !== null, data.partitions === null ? "not assigned yet" : `${data.partitions} assigned`]);
  for (const loop of data.stuck) entries.push([`Loop ${loop}`, false, "makes no progress"]);
  while (list.children.length > entries.length) list.lastChild.remove();
  entries.forEach(([name, ok, detail], index) => {
    if (!list.children[index]) list.append(make("li", {}, make("strong"), make("span"), make("small")));
    const [title, state, more] = list.children[index].children;
    write(title, name);
    write(state, ok ? "OK" : "failing");
    state.className = `pill ${ok ? "completed" : "failed"}`;
    write(more, detail || "");
  });
}

function showProblems(problems) {
  const box = find("problems");
  const texts = problems.map((each) => `${nameOf(each.part)}: ${each.detail}`);
  if (texts.join("\n") === Array.from(box.children, (each) => each.textContent).join("\n")) return;
  box.replaceChildren(...texts.map((text) => make("p", { class: "problem", text })));
}

function show(data) {
  last = data;
  write(find("updated"), `Updated ${clock(data.time)}`);
  find("updated").classList.remove("late");
  write(find("version"), `Waybill ${data.version}.`);
  find("unlock").hidden = !data.changesAllowed || token !== null;
  find("unlocked").hidden = token === null;
  write(find("figure-running"), data.running ? count(data.running.total) : "–");
  write(find("figure-queued"), data.queue ? count(data.queue.total) : "–");
  const waits = data.queue ? data.queue.exports.map((each) => each.waitingSeconds || 0) : [];
  write(find("figure-wait"), waits.length ? duration(Math.max(...waits)) : "–");
  write(find("figure-notices"), data.notices ? count(data.notices.total) : "–");
  write(find("figure-dead-letters"), data.deadLetters ? count(data.deadLetters.total) : "–");
  showDependencies(data);
  for (const definition of Object.values(TABLES)) fillSection(definition, data);
  showProblems(data.problems);
}

// Requests

async function poll() {
  clearTimeout(timer);
  if (polling || document.hidden) return;
  polling = true;
  try {
    const answer = await fetch("api/v1/overview", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
    const body = await answer.json();
    if (answer.ok) show(body);
    else showProblems([{ part: body.title, detail: body.detail }]);
  } catch {
    const old = last ? `The data below is from ${clock(last.time)}. ` : "";
    find("updated").classList.add("late");
    showProblems([{ part: "Consumer", detail: `no response. ${old}The page tries again every ${INTERVAL / 1000} seconds.` }]);
  } finally {
    polling = false;
    timer = setTimeout(poll, INTERVAL);
  }
}

async function send(method, path) {
  const headers = { Authorization: `Bearer ${token}` };
  try {
    const answer = await fetch(path, { method, headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT * 2) });
    if (answer.ok) return null;
    const problem = await answer.json();
    if (answer.status === 401) forget();
    return `${problem.title}. ${problem.detail}`;
  } catch {
    return "The consumer did not respond. Check the state of the export before you try again.";
  }
}

function say(text, wrong = false) {
  const message = find("message");
  message.classList.toggle("problem", wrong);
  write(message, text);
}

function forget() {
  token = null;
  if (last) show(last);
}

async function change(item, verb, done) {
  const path = `api/v1/exports/${encodeURIComponent(item.projectId)}/${encodeURIComponent(item.id)}/${verb}`;
  const problem = await send("POST", path);
  say(problem || `${done} ${item.name || item.id}.`, problem !== null);
  polling = false;
  await poll();
}

function retry(item) {
  return change(item, "retry", "Queued again:");
}

function askToCancel(item) {
  write(find("confirm-text"), `${item.name || ""} ${item.id} (project ${item.projectId})`.trim());
  const dialog = find("confirm");
  find("confirm-yes").onclick = () => {
    dialog.close();
    change(item, "cancel", "Cancelled:");
  };
  dialog.showModal();
}

// Start

for (const [id, definition] of Object.entries(TABLES)) buildSection(id, definition);
find("confirm-no").addEventListener("click", () => find("confirm").close());
find("lock").addEventListener("click", () => {
  forget();
  say("The page has forgotten the token.");
  find("token").focus();
});
find("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = find("token").value.trim();
  find("token").value = "";
  const problem = await send("GET", "api/v1/access");
  if (problem) token = null;
  say(problem || "Changes are allowed until this page is reloaded.", problem !== null);
  if (last) show(last);
  (problem ? find("token") : find("lock")).focus();
});
document.addEventListener("visibilitychange", poll);
poll();
