// The paper: strokes or a photo, how they got there, and the boxes on them.

const find = (selector) => element.querySelector(selector);
const canvas = find("canvas");
const pen = canvas.getContext("2d");
const paper = find(".paper");
const TAP = 5; // pixels on the screen: who moves the pen less has tapped, not drawn

// What is on the paper. A change makes a new state, so undo goes back to the one before. `origin` is shared by the
// states of one drawing; `reply` is the server's, once it has read all that is there.
const blank = () => ({ strokes: [], photo: undefined, origin: {}, reply: undefined });
let state = blank();
let version = 0; // counts all that changes what is to be read, each movement of the pen too
const past = [];

const isEmpty = () => !state.strokes.length && !state.photo;

function change(next, milliseconds = 0) {
  past.push(state);
  setState(next, milliseconds);
}

function undo() {
  if (past.length && !down) setState(past.pop());
}

function setState(next, milliseconds = 0) {
  if (next.origin !== state.origin) forgetQuestion();
  state = next;
  version += 1;
  find(".undo").disabled = !past.length;
  repaint();
  showState();
  readWithin(milliseconds);
}

function repaint() {
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  state.strokes.filter(({ points }) => points.length).forEach((stroke) => paint(stroke));
  showPhoto();
}

function showPhoto() {
  const { image, width, height } = state.photo ?? {};
  find(".photo")?.remove();
  if (image) canvas.after(image);
  paper.classList.toggle("with-photo", Boolean(image));
  paper.style.setProperty("--ratio", image ? width / height : canvas.width / canvas.height);
  find(".invitation").hidden = !isEmpty();
}

// Width and height of what is read, in its own pixels, which the digits' boxes are in.
function paperSize() {
  const { width, height } = state.photo?.image ? state.photo : canvas;
  return [width, height];
}

// Get `photo` an image that can be shown. `size` is the picture's own, if `url` is that of a preview.
async function loadImage(photo, url, size) {
  const image = new Image();
  image.className = "photo";
  image.alt = "The picture you chose";
  image.src = url;
  await image.decode();
  const { naturalWidth, naturalHeight } = image;
  Object.assign(photo, { image, ...(size ?? { width: naturalWidth, height: naturalHeight }) });
  if (photo === state.photo) showPhoto();
}

function make(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

// ---- the pen

function paint({ points, width }, first = 0) {
  pen.lineWidth = width;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...points[first]);
  for (const point of points.slice(first)) pen.lineTo(...point);
  pen.stroke();
}

// Where `event` is, in the pixels of what is read.
function place(event) {
  const [width, height] = paperSize();
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * height) / box.height];
}

let down; // the event with which the pen came down; undefined while it is up
let stroke; // the one that is drawn

function begin(event) {
  const photo = state.photo;
  const fresh = isEmpty() || photo ? blank() : state;
  stroke = { width: Number(find(".pens :checked").value), points: [] };
  change({ strokes: [...fresh.strokes, stroke], photo: undefined, origin: fresh.origin, reply: undefined }, LIVE);
  extend([event]);
}

function extend(events) {
  const first = Math.max(stroke.points.length - 1, 0);
  stroke.points.push(...events.map(place));
  paint(stroke, first);
  version += 1;
  setStale(true);
  readWithin(LIVE);
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return;
  canvas.setPointerCapture(event.pointerId);
  down = event;
});
canvas.addEventListener("pointermove", (event) => {
  if (!down || !canvas.hasPointerCapture(event.pointerId)) {
    highlight(digitAt(event));
    return;
  }
  if (!stroke) {
    const scrolls = state.photo && event.pointerType === "touch";
    const moved = Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY);
    if (scrolls || moved < TAP) return;
    begin(down);
  }
  const events = event.getCoalescedEvents?.() ?? [];
  extend(events.length ? events : [event]);
});
canvas.addEventListener("pointercancel", () => {
  down = undefined;
});
canvas.addEventListener("lostpointercapture", (event) => {
  if (down && !stroke) tap(event);
  const drawn = stroke;
  down = stroke = undefined;
  if (drawn) readWithin(0);
});
canvas.addEventListener("pointerleave", endHover);

// A tap on a digit shows its card; elsewhere on a drawing it makes a dot.
function tap(event) {
  const index = digitAt(event);
  if (index !== undefined) select(index);
  else if (!state.photo) begin(down);
}

// ---- the boxes

function showBoxes(digits) {
  const [width, height] = paperSize();
  const share = (length, whole) => `${(100 * length) / whole}%`;
  const boxes = digits.map((digit) => {
    const [left, top, right, bottom] = digit.box;
    const box = document.createElement("div");
    box.className = "box";
    box.classList.toggle("doubtful", !digit.sure);
    box.classList.toggle("low", top < 0.06 * height);
    box.style.cssText = `left: ${share(left, width)}; top: ${share(top, height)}; width: ${share(right - left, width)}; height: ${share(bottom - top, height)}`;
    box.append(make("span", boxText(digit)));
    return box;
  });
  find(".boxes").replaceChildren(...boxes);
}

// The index of the digit whose box `event` is in, of the smallest if there are several.
function digitAt(event) {
  const [x, y] = place(event);
  const area = ({ box: [left, top, right, bottom] }) => (right - left) * (bottom - top);
  const inside = shownDigits().filter(({ box }) => box[0] <= x && x <= box[2] && box[1] <= y && y <= box[3]);
  inside.sort((a, b) => area(a) - area(b));
  return inside.length ? shownDigits().indexOf(inside[0]) : undefined;
}
