// The page of `bfr review`. It asks only the server that it came from, below the token in its own address.
"use strict";
const PAGE = 24, POLL = 5000, ZOOMS = [1, 2, 3, 4, 6, 8];
const WORDS = { approved: "approved", original: "keeps the original", redo: "redo", skipped: "skipped" };
const $ = (id) => document.getElementById(id);
const number = (value) => Number(value).toLocaleString("en");
const state = { about: null, rows: [], at: 0, pages: [], more: false, zoom: 1, look: 1, whole: 1, flipped: false, redo: null };
let saving = Promise.resolve(), loads = 0;

// The server ---------------------------------------------------------------------------------------------------------
async function ask(path, body) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body || {}) };
  let answer;
  try {
    answer = await fetch(path, body ? post : {});
  } catch {
    throw new Error("The review has ended, or its machine cannot be reached. Nothing that is shown as decided is lost: start the same command again.");
  }
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

function notice(text, bad = false) {
  $("notice").textContent = text;
  $("notice").classList.toggle("bad", bad);
}

const failed = (error) => notice(error.message, true);

// Filters and pages --------------------------------------------------------------------------------------------------
function query() {
  const given = new URLSearchParams();
  for (const [name, value] of new FormData($("filter")))
    for (const one of name === "outcome" && value === "changed" ? ["restored", "corrected"] : [value])
      if (one) given.append(name, one);
  return given;
}

async function load(after = null) {
  const mine = ++loads, asked = query();
  asked.set("limit", PAGE + 1);
  if (after) {
    asked.set("key", after.key);
    asked.set("after", after.face);
  }
  const rows = await ask(`api/faces?${asked}`);
  await told;
  if (mine !== loads) return;
  state.more = rows.length > PAGE;
  state.rows = rows.slice(0, PAGE);
  state.after = after;
  show();
}

function restart() {
  state.pages = [];
  return load().then(poll).catch(failed);
}

async function next() {
  if (!state.more) return notice("That was the last face of this filter.");
  state.pages.push(state.after);
  await load(state.rows[state.rows.length - 1]);
  scrollTo(0, 0);
}

async function back() {
  if (!state.pages.length) return notice("This is the first page.");
  await load(state.pages.pop());
  scrollTo(0, 0);
}

async function poll() {
  const told = await ask(`api/progress?${query()}`);
  const { faces, decided } = told.filter, [read, files] = told.read;
  $("bar").value = faces ? decided / faces : 0;
  $("bar-label").textContent = `${number(decided)} of ${number(faces)} decided`;
  const counts = Object.entries(told.counts).filter(([, count]) => count);
  const own = Object.values(told.own).reduce((sum, count) => sum + count, 0);
  const said = counts.length ? [counts.map(([what, count]) => `${number(count)} ${WORDS[what]}`).join(", "), `${number(own)} by you`] : [];
  if (told.outdated) said.push(`${number(told.outdated)} no longer count: restored again since`);
  $("counts").textContent = said.join("; ");
  if (told.failed) notice(`The list of faces could not be made: ${told.failed}`, true);
  else if (read < files) notice(`Reading the run, for the first time: ${number(read)} of ${number(files)} files. The order is that of what has been read.`);
  else if (state.reading) {
    await begin();
    if (!state.pages.length && !state.rows.some((row) => row.verdict || row.saving)) await load();
  }
  state.reading = !told.failed && read < files;
  if (state.reading && !state.rows.length) await load();
}

// Tiles --------------------------------------------------------------------------------------------------------------
function facts(row) {
  const found = [row.outcome.replace("_", " "), `${Math.round(row.side)} px`];
  if (row.identity !== null) found.push(`identity ${row.identity.toFixed(3)}`);
  if (row.gain !== null) found.push(`gain ${row.gain.toFixed(2)}`);
  if (row.spread !== null) found.push(`± ${row.spread.toFixed(2)}`);
  if (row.harm !== null) found.push(`risk ${row.harm.toFixed(2)}`);
  if (row.year !== null) found.push(row.year);
  return found.join(" · ");
}

function tellFacts(place, row) {
  place.textContent = facts(row);
  if (!row.word) return;
  const word = document.createElement("span");
  word.textContent = ` · ${row.word}`;
  word.classList.toggle("mark", row.word === "doubtful");
  place.append(word);
}

function verdict(row) {
  if (row.saving) return "saving…";
  if (row.lost) return "not saved";
  if (!row.verdict) return "";
  const how = row.verdict === "redo" ? `: ${row.method}${row.fidelity === null ? "" : ` at ${row.fidelity}`}` : "";
  return `${WORDS[row.verdict]}${how}${row.by === state.about.reviewer ? "" : `, by ${row.by}`}`;
}

function put(img, source, alt, magnified) {
  const well = img.parentElement;
  img.alt = alt;
  img.classList.toggle("magnified", magnified);
  img.onload = () => img.style.setProperty("--w", img.naturalWidth);
  img.onerror = async () => {
    const answer = await fetch(source).catch(() => null);
    const why = document.createElement("span");
    why.textContent = answer ? await answer.text() : "not to be had";
    well.classList.add("lost");
    img.replaceWith(why);
  };
  img.src = source;
}

function show() {
  const list = $("tiles");
  list.replaceChildren(...state.rows.map(tile));
  $("none").hidden = state.rows.length > 0;
  $("none").textContent = state.reading ? "Reading the run…" : "No face is left for this filter.";
  document.querySelector('[data-do="next"]').disabled = !state.more;
  document.querySelector('[data-do="back"]').disabled = !state.pages.length;
  document.querySelector('[data-do="all"]').disabled = !state.rows.length;
  const first = state.rows.findIndex((row) => !row.verdict);
  go(first < 0 ? 0 : first, $("look").open || document.activeElement === document.body || !document.activeElement);
}

function tile(row) {
  const item = $("tile").content.cloneNode(true).firstElementChild, article = item.firstElementChild;
  item.dataset.face = row.face;
  item.querySelector(".id").textContent = row.id;
  tellFacts(item.querySelector(".facts"), row);
  for (const img of item.querySelectorAll("img")) {
    const which = img.dataset.which, well = img.parentElement;
    well.dataset.label = which;
    well.setAttribute("aria-label", `Look larger: ${which}, ${row.id}`);
    put(img, `face/${row.face}/${which}`, `${which}, ${row.id}`, state.zoom > 1);
  }
  article.setAttribute("aria-label", `${row.id}: ${facts(row)}`);
  article.addEventListener("focusin", () => mark(state.rows.indexOf(row)));
  item.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    go(state.rows.indexOf(row), !button);
    if (button) act(button.dataset.do);
  });
  tell(row, item);
  return item;
}

const itemOf = (row) => document.querySelector(`#tiles [data-face="${row.face}"]`);

function tell(row, item = itemOf(row)) {
  if (item) {
    const article = item.firstElementChild;
    article.className = `tile ${row.saving ? "saving" : row.verdict || ""}`;
    item.querySelector(".verdict").textContent = verdict(row);
    item.querySelector(".verdict").classList.toggle("mark", Boolean(row.lost));
  }
  if ($("look").open && state.rows[state.at] === row) $("look").querySelector(".verdict").textContent = verdict(row);
}

function mark(at) {
  state.at = at;
  document.querySelectorAll("#tiles .tile").forEach((article, i) => {
    article.tabIndex = i === at ? 0 : -1;
    article.querySelectorAll("button").forEach((button) => (button.tabIndex = i === at ? 0 : -1));
  });
}

function go(at, focus = true) {
  if (!state.rows.length) return;
  mark(Math.max(0, Math.min(at, state.rows.length - 1)));
  if ($("look").open) look();
  else if (focus) {
    const article = itemOf(state.rows[state.at]).firstElementChild;
    article.focus({ preventScroll: true });
    article.scrollIntoView({ block: "nearest" });
  }
}

function columns() {
  const tops = [...document.querySelectorAll("#tiles li")].map((item) => item.offsetTop);
  return Math.max(1, tops.filter((top) => top === tops[0]).length);
}

// Decisions ----------------------------------------------------------------------------------------------------------
function take(found) {
  for (const told of found) {
    const row = state.rows.find((one) => one.face === told.face);
    if (!row) continue;
    Object.assign(row, told, { key: row.key, saving: false, lost: false });
    tell(row);
  }
  poll().catch(failed);
}

function decide(rows, what, redo = null) {
  for (const row of rows) {
    row.saving = true;
    tell(row);
  }
  const faces = rows.map((row) => row.face);
  saving = saving
    .then(() => ask("api/decide", { faces, verdict: what, redo }))
    .then((found) => {
      take(found);
      notice(`${rows.length === 1 ? rows[0].id : `${rows.length} faces`}: ${WORDS[what]}`);
    })
    .catch((error) => {
      for (const row of rows) {
        row.saving = false;
        row.lost = true;
        tell(row);
      }
      failed(error);
    });
  return saving;
}

async function decideHere(what, redo = null) {
  const row = state.rows[state.at];
  if (!row) return;
  const written = decide([row], what, redo);
  const open = (one) => !one.verdict && !one.saving;
  let at = state.rows.findIndex((one, i) => i > state.at && open(one));
  if (at < 0) at = state.rows.findIndex(open);
  if (at >= 0) return go(at);
  await written;
  if (!row.lost && state.more) await next();
}

async function undo() {
  await saving;
  const found = await ask("api/undo", {});
  if (!found.length) return notice("There is no decision of yours to undo.");
  take(found);
  notice(`undone: ${found.length === 1 ? found[0].id : `${found.length} faces`}`);
  const at = state.rows.findIndex((row) => row.face === found[0].face);
  if (at >= 0) go(at);
}

function askRedo() {
  if (!state.rows[state.at]) return;
  const dialog = $("redo"), form = dialog.querySelector("form");
  dialog.returnValue = "";
  dialog.showModal();
  (form.elements.fidelity.disabled ? form.elements.method : form.elements.fidelity).focus();
}

$("redo").addEventListener("close", () => {
  const given = $("redo").querySelector("form").elements;
  if ($("redo").returnValue === "yes") {
    state.redo = { method: given.method.value, fidelity: given.fidelity.disabled || given.fidelity.value === "" ? null : Number(given.fidelity.value) };
    decideHere("redo", state.redo).catch(failed);
  } else go(state.at);
});

async function approveAll() {
  const rows = state.rows.filter((row) => !row.verdict && !row.saving);
  if (!rows.length) return notice("Every face on this page is decided.");
  await decide(rows, "approved");
  if (!rows[0].lost && state.more) await next();
}

// A larger look ------------------------------------------------------------------------------------------------------
function openLook() {
  if (!state.rows.length) return;
  state.flipped = false;
  state.look = 0;
  state.whole = 1;
  $("look").showModal();
  press("photo", false);
  look();
}

function press(what, on) {
  $("look").querySelector(`[data-do="${what}"]`).setAttribute("aria-pressed", on);
}

function pressed(what) {
  return $("look").querySelector(`[data-do="${what}"]`).getAttribute("aria-pressed") === "true";
}

function look() {
  const row = state.rows[state.at], dialog = $("look");
  dialog.querySelector(".id").textContent = row.id;
  tellFacts(dialog.querySelector(".facts"), row);
  dialog.querySelector(".verdict").textContent = verdict(row);
  const whole = pressed("photo");
  $("stack").hidden = whole;
  $("boxes").hidden = !whole;
  if (whole) return photo(row).catch(failed);
  $("stage-note").textContent = "";
  for (const which of ["after", "before"]) {
    const img = $(which);
    img.alt = `${which}, ${row.id}`;
    img.onload = size;
    img.onerror = async () => {
      const answer = await fetch(`face/${row.face}/${which}?whole`).catch(() => null);
      $("stage-note").textContent = `${which}: ${answer ? await answer.text() : "not to be had"}`;
    };
    img.src = `face/${row.face}/${which}?whole`;
  }
  flip(state.flipped);
}

function size() {
  const width = $("after").naturalWidth, height = $("after").naturalHeight;
  if (!width || pressed("photo")) return;
  const room = Math.min($("stage").clientWidth / width, $("stage").clientHeight / height);
  if (!state.look) state.look = Math.max(1, Math.min(6, Math.floor(room)));
  $("stack").style.setProperty("--w", width);
  $("stack").style.setProperty("--look", state.look);
  for (const id of ["before", "after"]) $(id).classList.toggle("magnified", state.look > 1);
  $("zoom").textContent = `${100 * state.look} %`;
}

function flip(on) {
  state.flipped = on;
  press("flip", on);
  $("stack").style.setProperty("--cut", on ? "100%" : `${$("cut").value}%`);
  if (pressed("photo")) look();
}

async function photo(row) {
  const which = state.flipped ? "before" : "after", found = await ask(`api/image/${row.face}`);
  if (state.rows[state.at] !== row) return;
  const img = document.createElement("img");
  img.alt = `the whole photo, ${which}, ${row.id}`;
  img.src = `photo/${row.face}/${which}`;
  const shown = found.faces.map((face, i) => {
    const box = document.createElement("button"), [x0, y0, x1, y1] = face.box;
    const place = { left: x0 / found.width, top: y0 / found.height, width: (x1 - x0) / found.width, height: (y1 - y0) / found.height };
    for (const [edge, share] of Object.entries(place)) box.style[edge] = `${100 * share}%`;
    box.type = "button";
    box.title = facts(face);
    box.setAttribute("aria-label", `face ${i + 1}: ${facts(face)}${face.verdict ? `, ${WORDS[face.verdict]}` : ""}`);
    if (face.face === row.face) box.setAttribute("aria-current", "true");
    box.addEventListener("click", () => pick(face));
    return box;
  });
  const stage = $("stage"), fits = Math.min(stage.clientWidth / found.width, stage.clientHeight / found.height, 2);
  $("boxes").style.setProperty("--w", found.width);
  $("boxes").style.setProperty("--look", fits * state.whole);
  $("zoom").textContent = `${Math.round(100 * fits * state.whole)} %`;
  $("boxes").replaceChildren(img, ...shown);
  $("stage-note").textContent = `${found.width} × ${found.height} px, ${which}; ${found.faces.length} ${found.faces.length === 1 ? "face" : "faces"}. A click on a box goes to its face.`;
}

function pick(face) {
  let at = state.rows.findIndex((row) => row.face === face.face);
  if (at < 0) {
    at = state.at + 1;
    state.rows.splice(at, 0, face);
    $("tiles").children[state.at].after(tile(face));
  }
  mark(at);
  look();
}

$("cut").addEventListener("input", () => flip(false));
$("look").addEventListener("close", () => go(state.at));

function zoom(step) {
  if (pressed("photo") && $("look").open) {
    state.whole = step ? Math.max(1, Math.min(8, state.whole * 1.5 ** step)) : 1;
    return look();
  }
  if ($("look").open) {
    state.look = step ? ZOOMS[Math.max(0, Math.min(ZOOMS.length - 1, ZOOMS.indexOf(state.look) + step))] || 1 : 1;
    return size();
  }
  state.zoom = step ? Math.max(1, Math.min(4, state.zoom + step)) : 1;
  document.documentElement.style.setProperty("--zoom", state.zoom);
  document.querySelectorAll(".well img").forEach((img) => img.classList.toggle("magnified", state.zoom > 1));
  notice(`Faces at ${100 * state.zoom} %`);
}

function slide(step) {
  $("cut").value = Number($("cut").value) + step;
  flip(false);
}

// What can be done ---------------------------------------------------------------------------------------------------
async function end() {
  await saving;
  await ask("api/end", {});
  document.querySelectorAll("button, select, input").forEach((part) => (part.disabled = true));
  clearInterval(polling);
  notice("The session is over. Every decision is in the run; this page can be closed.");
}

const ACTIONS = {
  approved: () => decideHere("approved"),
  original: () => decideHere("original"),
  skipped: () => decideHere("skipped"),
  redo: askRedo,
  again: () => (state.redo ? decideHere("redo", state.redo) : askRedo()),
  undo, next, back, all: approveAll, end,
  keys: () => $("keys").showModal(),
  look: openLook,
  close: () => $("look").close(),
  previous: () => go(state.at - 1),
  following: () => go(state.at + 1),
  larger: () => zoom(1),
  smaller: () => zoom(-1),
  plain: () => zoom(0),
  flip: () => flip(!state.flipped),
  photo: () => { press("photo", !pressed("photo")); look(); },
};
const KEYS = {
  a: "approved", k: "original", s: "skipped", r: "redo", R: "again", u: "undo", A: "all", n: "next", p: "back", "?": "keys",
  Enter: "look", "+": "larger", "=": "larger", "-": "smaller", 0: "plain", ArrowLeft: "previous", ArrowRight: "following",
};

function act(what) {
  return Promise.resolve(ACTIONS[what]()).catch(failed);
}

addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button && !button.closest("#tiles")) act(button.dataset.do);
});

addEventListener("keydown", (event) => {
  const at = event.target, typing = at.matches("select, input:not(#cut), textarea") || $("redo").open || $("keys").open;
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const inside = $("look").open;
  if (event.key === "Enter" && (inside || at.matches("button"))) return;
  if (at.id === "cut" && event.key.startsWith("Arrow")) return;
  let what = KEYS[event.key];
  if (inside && what === "look") return;
  if (inside && event.key === "x") what = "flip";
  if (event.key === "f") {
    if (!inside) openLook();
    what = "photo";
  }
  if (inside && "[]".includes(event.key)) slide(event.key === "]" ? 5 : -5);
  else if (!inside && event.key === "ArrowUp") go(state.at - columns());
  else if (!inside && event.key === "ArrowDown") go(state.at + columns());
  else if (what) act(what);
  else return;
  event.preventDefault();
});

// The start ----------------------------------------------------------------------------------------------------------
function choices(select, entries) {
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
}

async function begin() {
  const about = (state.about = await ask("api/about")), given = $("filter").elements, kept = given.outcome.value;
  document.title = `Review: ${about.run}`;
  $("run").textContent = about.run;
  $("method").textContent = about.method + (about.enlarged ? "; before: enlarged to the same size" : "");
  $("reviewer").textContent = about.reviewer;
  const outcomes = about.outcomes.map(([name, count]) => [name, `${name.replace("_", " ")} (${number(count)})`]);
  choices(given.outcome, [["changed", "changed ones"], ["", "any"], ...outcomes]);
  given.outcome.value = kept || "changed";
  choices(given.score, [["", "any"], ...Object.keys(about.scores).map((name) => [name, name])]);
  choices(given.decade, [["", "any"], ...about.decades.map(([year, count]) => [year, `${year}s (${number(count)})`])]);
  given.decade.parentElement.hidden = !about.decades.length;
  $("folders").replaceChildren(...about.folders.map(([name]) => new Option(name)));
  given.folder.parentElement.hidden = !about.folders.length;
  const methods = $("redo").querySelector("form").elements.method;
  choices(methods, about.methods.map(({ name }) => [name, name]));
  if (about.methods.some(({ name }) => name === about.own_method)) methods.value = about.own_method;
  dial();
}

function dial() {
  const { method, fidelity } = $("redo").querySelector("form").elements;
  fidelity.disabled = !state.about.methods.some(({ name, dial }) => name === method.value && dial);
}

$("filter").addEventListener("change", (event) => {
  if (event.target.name === "score") {
    const [low, high] = state.about.scores[event.target.value] || ["", ""], given = $("filter").elements;
    given.low.value = given.high.value = "";
    given.low.placeholder = low === "" ? "from" : `from ${low.toPrecision(3)}`;
    given.high.placeholder = high === "" ? "to" : `to ${high.toPrecision(3)}`;
  }
  restart();
});
$("redo").querySelector("select").addEventListener("change", dial);
$("filter").addEventListener("submit", (event) => event.preventDefault());
const told = begin();
load().then(() => told).then(() => { show(); return poll(); }).catch(failed);
const polling = setInterval(() => poll().catch(failed), POLL);
