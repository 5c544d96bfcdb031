// What the page does; Gradio runs it when the page is there. `element` is the page, `props.most_bytes` the longest
// picture in bytes, and `server.read` calls read() of digits/demo/__init__.py.
const find = (selector) => element.querySelector(selector);
const canvas = find("canvas");
const photo = find(".photo");
const input = find("input");
const answer = find(".answer");
const pen = canvas.getContext("2d");
let asked = 0; // counts questions: only the answer to the last one is shown
let timer;

function show(message, digits = "") {
  answer.textContent = message;
  answer.classList.toggle("words", !digits);
  find(".digits").innerHTML = digits; // of the server's own making: numbers and images
}

function clear() {
  asked += 1;
  clearTimeout(timer);
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(photo.src);
  photo.removeAttribute("src");
  photo.hidden = true;
  input.value = "";
  show("");
}

async function ask(url) {
  const question = (asked += 1);
  const busy = setTimeout(() => question === asked && show("Reading …"), 500);
  let reply;
  try {
    reply = await server.read(url);
  } catch {
    reply = { message: "The server does not answer. Please try again." };
  }
  clearTimeout(busy);
  if (question === asked) show(reply.message, reply.digits);
  return question === asked && reply.opened;
}

function asUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

let chosen; // the picture, until it is cleared
async function choose(file) {
  if (!file) return;
  clear();
  const question = asked;
  chosen = undefined;
  if (file.size > props.most_bytes) {
    show(`This file is larger than ${Math.round(props.most_bytes / 1e6)} MB.`);
    return;
  }
  let url;
  try {
    url = await asUrl(file);
  } catch {
    if (question === asked) show("This file cannot be read.");
    return;
  }
  if (question !== asked) return; // meanwhile cleared, or another one was chosen
  chosen = url;
  if (await ask(url)) {
    photo.src = URL.createObjectURL(file);
    photo.hidden = false;
  }
}

function read() {
  clearTimeout(timer);
  ask(chosen ?? canvas.toDataURL("image/png"));
}

function place(event) {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  return [((event.clientX - left) * canvas.width) / width, ((event.clientY - top) * canvas.height) / height];
}

let last; // event of the stroke
function draw(events) {
  pen.beginPath();
  pen.moveTo(...place(events[0]));
  for (const event of events.slice(1)) pen.lineTo(...place(event));
  pen.stroke();
  last = events.at(-1);
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return;
  clearTimeout(timer);
  if (chosen !== undefined) {
    chosen = undefined;
    clear();
  }
  canvas.setPointerCapture(event.pointerId);
  pen.lineWidth = canvas.width / 36;
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = "black";
  draw([event, event]); // a dot
});
canvas.addEventListener("pointermove", (event) => {
  if (!canvas.hasPointerCapture(event.pointerId)) return;
  draw([last, ...(event.getCoalescedEvents?.() ?? []), event]);
});
canvas.addEventListener("lostpointercapture", () => {
  timer = setTimeout(read, 500); // when the hand rests
});

find(".read").addEventListener("click", read);
find(".clear").addEventListener("click", () => {
  chosen = undefined;
  clear();
});
input.addEventListener("change", () => choose(input.files[0]));
const paper = find(".paper");
paper.addEventListener("dragover", (event) => event.preventDefault());
paper.addEventListener("drop", (event) => {
  event.preventDefault();
  choose(event.dataTransfer.files[0]);
});
clear();
