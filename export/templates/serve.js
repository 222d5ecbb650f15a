// The page of export.serve: uploads recordings, follows their progress, shows the results.
const results = document.getElementById("results");
const removeAll = document.getElementById("remove-all");
const start = document.querySelector(".start");
const articles = new Map();
// Polling intervals in milliseconds; files are kept as long as the page polls.
const QUICK = 400;
const SLOW = Math.min(20, Number(start.dataset.keepSeconds) / 3) * 1000;
let timer = 0;
// Consecutive requests without an answer, and the number after which the page gives up.
let unanswered = 0;
const GIVEN_UP = 5;
const uploads = new Set();

// For screen readers; sighted users see the same in the articles.
function say(text) {
  document.getElementById("status").textContent = text;
}

async function ask(method, address) {
  const answer = await fetch(address, { method });
  if (answer.ok) return answer;
  let text = `the page answers ${answer.status}`;
  try {
    text = (await answer.json()).error;
  } catch {
    // Not this server's JSON: show only the status.
  }
  throw Object.assign(new Error(text), { status: answer.status });
}

function place(article) {
  results.prepend(article);
  removeAll.hidden = false;
}

function drop(article, key) {
  article.remove();
  if (key) articles.delete(key);
  removeAll.hidden = !results.children.length;
}

function task(name, cancel) {
  const article = document.getElementById("progress").content.cloneNode(true).firstElementChild;
  article.querySelector("h2").textContent = name;
  article.querySelector("button").addEventListener("click", cancel);
  return article;
}

// Marks the finished stages and the current one.
function mark(article, stage) {
  let past = true;
  for (const item of article.querySelectorAll(".stages li")) {
    const current = item.dataset.stage === stage;
    if (current) past = false;
    item.className = past ? "past" : "";
    if (current) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  }
}

function show(article, text, fraction, stage = "sending") {
  mark(article, stage);
  article.querySelector(".step").textContent = text;
  const bar = article.querySelector("progress");
  if (fraction === null) bar.removeAttribute("value");
  else bar.value = fraction;
}

// The article stays until it is dismissed: a message that disappears would be missed.
function fail(article, text, key) {
  const line = article.querySelector(".step");
  line.className = "problem";
  line.textContent = text;
  article.querySelector("progress")?.remove();
  article.querySelector(".stages")?.remove();
  const button = article.querySelector("button");
  const dismiss = button.cloneNode();
  dismiss.textContent = "Dismiss";
  dismiss.addEventListener("click", () => {
    drop(article, key);
    if (key) ask("DELETE", `recordings/${key}`).catch(() => {});
  });
  button.replaceWith(dismiss);
  say(`${article.querySelector("h2").textContent}: ${text}`);
}

function address(path, values) {
  return `${path}?${new URLSearchParams(values)}`;
}

function model() {
  return document.getElementById("model").value;
}

// XMLHttpRequest, because fetch does not report upload progress.
function send(file) {
  const request = new XMLHttpRequest();
  const article = task(file.name, () => request.abort());
  place(article);
  const most = Number(start.dataset.maxBytes);
  if (file.size > most) {
    fail(article, `larger than ${most / 1e6} MB, which is what this page takes; voices-apart separate takes files of any size`);
    return;
  }
  show(article, "sending", 0);
  request.upload.addEventListener("progress", (event) => {
    show(article, "sending", event.total ? event.loaded / event.total : null);
  });
  uploads.add(request);
  request.addEventListener("loadend", () => uploads.delete(request));
  request.addEventListener("abort", () => drop(article));
  request.addEventListener("error", () => fail(article, "could not be sent: the page's server has broken off or ended"));
  request.addEventListener("load", () => {
    let answer = {};
    try {
      answer = JSON.parse(request.responseText);
    } catch {
      // Reported below.
    }
    if (request.status === 202 && !article.isConnected) ask("DELETE", `recordings/${answer.key}`).catch(() => {});
    else if (request.status === 202) follow(article, answer.key);
    else fail(article, answer.error ?? `the page answers ${request.status}`);
  });
  request.open("POST", address("recordings", { name: file.name, model: model() }));
  request.send(file);
}

function follow(article, key) {
  const own = task(article.querySelector("h2").textContent, () => {
    drop(own, key);
    ask("DELETE", `recordings/${key}`).catch(() => {});
  });
  article.replaceWith(own);
  show(own, "waiting", null, "waiting");
  articles.set(key, { element: own, done: false });
  poll();
}

async function finish(key) {
  const kept = articles.get(key);
  const text = await (await ask("GET", `recordings/${key}`)).text();
  const holder = document.createElement("div");
  // The server's own template, which escapes names; the page's policy forbids inline scripts.
  holder.innerHTML = text;
  const article = holder.querySelector("article");
  article.querySelector(".remove").addEventListener("click", () => {
    drop(article, key);
    ask("DELETE", `recordings/${key}`).catch(() => {});
    results.focus();
  });
  const focused = kept.element.contains(document.activeElement);
  kept.element.replaceWith(article);
  kept.element = article;
  equipPlayers(article);
  equipTurns(article);
  if (focused) article.querySelector("audio").focus();
  say(`${article.querySelector("h2").firstChild.textContent.trim()} is separated`);
}

// A click on a turn plays the recording from its start.
function equipTurns(article) {
  const audio = article.querySelector("audio");
  for (const button of article.querySelectorAll(".turn")) {
    button.addEventListener("click", () => {
      audio.currentTime = Number(button.dataset.start);
      audio.play();
    });
  }
}

async function poll() {
  clearTimeout(timer);
  let active = false;
  const before = [...articles.keys()];
  try {
    const listed = await (await ask("GET", "recordings")).json();
    unanswered = 0;
    const keys = new Set(listed.map((one) => one.key));
    for (const one of listed) {
      if (!articles.has(one.key)) {
        const article = task(one.name, () => {
          drop(article, one.key);
          ask("DELETE", `recordings/${one.key}`).catch(() => {});
        });
        place(article);
        articles.set(one.key, { element: article, done: false });
      }
      const kept = articles.get(one.key);
      if (kept.done) continue;
      if (one.state === "done") {
        kept.done = true;
        finish(one.key).catch((problem) => fail(kept.element, problem.message, one.key));
      } else if (one.state === "failed") {
        kept.done = true;
        fail(kept.element, one.message, one.key);
      } else {
        active = true;
        const waiting = one.state === "waiting" && one.ahead;
        show(kept.element, waiting ? `waiting, ${one.ahead} before it` : one.step, one.fraction, one.stage);
      }
    }
    for (const key of before) {
      if (!keys.has(key) && articles.has(key)) drop(articles.get(key).element, key);
    }
  } catch (problem) {
    if (problem.status === 403 && articles.size) {
      articles.clear();
      const article = task("Gone", () => {});
      results.replaceChildren(article);
      fail(article, problem.message);
    }
    const passing = problem instanceof TypeError || problem.status >= 500;
    const again = passing && ++unanswered < GIVEN_UP;
    for (const [key, kept] of articles) {
      if (kept.done) continue;
      if (again) {
        active = true;
        show(kept.element, "the page's server does not answer; trying again", null, "");
      } else {
        kept.done = true;
        fail(kept.element, problem instanceof TypeError ? "the page's server has ended" : problem.message, key);
      }
    }
  }
  clearTimeout(timer);
  timer = setTimeout(poll, active ? QUICK : SLOW);
}

document.getElementById("file").addEventListener("change", (event) => {
  for (const file of event.target.files) send(file);
  event.target.value = "";
});

document.getElementById("example").addEventListener("click", async () => {
  const article = task("example.wav", () => drop(article));
  place(article);
  show(article, "two synthetic speakers say something", null);
  try {
    const answer = await (await ask("POST", address("example", { model: model() }))).json();
    if (article.isConnected) follow(article, answer.key);
    else await ask("DELETE", `recordings/${answer.key}`);
  } catch (problem) {
    fail(article, problem.message);
  }
});

removeAll.addEventListener("click", async () => {
  try {
    for (const request of [...uploads]) request.abort();
    await ask("DELETE", "recordings");
    articles.clear();
    results.replaceChildren();
    removeAll.hidden = true;
    say("all recordings are removed");
    document.getElementById("file").focus();
  } catch (problem) {
    say(problem.message);
  }
});

// Files dropped outside the zone are taken too: otherwise the browser would open them instead.
const zone = document.getElementById("drop");
let depth = 0;
addEventListener("dragenter", () => zone.classList.toggle("over", ++depth > 0));
addEventListener("dragleave", () => zone.classList.toggle("over", --depth > 0));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  zone.classList.remove("over");
  for (const file of event.dataTransfer.files) send(file);
});

equipRecorder(send);
poll();
