// When the server is asked, and what if it does not answer.

const LIVE = 200; // milliseconds between an answer and the next question while the pen is down
const SLOW = 500; // milliseconds after which it is said that a picture is being read
const RETRY = 2000; // milliseconds until a server that did not answer is asked again
const PATIENCE = 1900; // milliseconds after which we look whether the server is still there
const PROBE = 900; // milliseconds that it has to show that it is

let question; // what ends the one that is on its way; there is one at most
let timer;
let due = Infinity; // when the next one will be asked

function readWithin(milliseconds) {
  const time = performance.now() + milliseconds;
  if (time >= due) return;
  clearTimeout(timer);
  due = time;
  timer = setTimeout(read, milliseconds);
}

async function read() {
  clearTimeout(timer);
  due = Infinity;
  if (question || isEmpty() || state.reply) return;
  question = new AbortController();
  const slow = setTimeout(() => find(".answer").textContent || showMessage("Reading …"), SLOW);
  const asked = { state, version };
  const reply = await askAbout(asked.state, question);
  clearTimeout(slow);
  question = undefined;
  if (asked.state.origin === state.origin) take(reply, asked);
  if (asked.version !== version) readWithin(down ? LIVE : 0);
  else if (!reply || reply.busy) readWithin(RETRY);
}

// There is something else on the paper: the answer is not waited for.
function forgetQuestion() {
  question?.abort();
}

async function askAbout({ photo }, question) {
  if (!photo) return ask(await new Promise((resolve) => canvas.toBlob(resolve)), "", question);
  const content = await photo.file.arrayBuffer().catch(() => undefined);
  if (!content) return { opened: false, message: "This file cannot be read." };
  const reply = await ask(content, "", question);
  await photo.opening;
  if (reply?.preview) await loadImage(photo, reply.preview.url, reply.preview);
  return reply;
}

function take(reply, asked) {
  if (!reply) {
    showGone();
  } else if (reply.opened) {
    reply.origin = asked.state.origin;
    if (asked.version === version) state.reply = reply;
    showReply(reply);
  } else {
    if (state.photo && !reply.busy) setState(blank());
    showMessage(reply.message);
  }
}

// The server's reply to a picture, or undefined if the server is gone. A photo may take long to send and to read, so
// after a while we ask whether the server is there at all.
async function ask(picture, query = "", ending = new AbortController()) {
  const reply = send(picture, query, ending.signal).catch(() => undefined);
  const waiting = {};
  for (;;) {
    const first = await Promise.race([reply, pause(PATIENCE).then(() => waiting)]);
    if (first !== waiting) return first;
    if (!(await isThere())) ending.abort();
  }
}

async function send(body, query, signal) {
  const response = await fetch(`read${query}`, { method: "POST", body, signal }); // digits/demo/server.py
  return { busy: response.status === 503, ...(await response.json()) };
}

async function isThere() {
  try {
    await fetch(document.baseURI, { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(PROBE) });
    return true;
  } catch {
    return false;
  }
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

window.addEventListener("online", () => readWithin(0));
