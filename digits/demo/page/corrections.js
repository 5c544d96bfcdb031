// "It is a 9": what the visitor says is kept in this browser alone, and downloaded as <label>/<n>.png in a zip file.

const STORE = "deepdigits-corrections";
const CUT_OUT_SIDE = [96, 320]; // pixels: range of the longer side of a picture that is kept
const MARGIN = 0.3; // of the box's longer side, around it
let corrections = loadCorrections(); // each with `label` and `url`, the data URL of a PNG

function loadCorrections() {
  try {
    return JSON.parse(localStorage.getItem(STORE)) ?? [];
  } catch {
    return []; // the browser keeps nothing for us
  }
}

function storeCorrections() {
  try {
    localStorage.setItem(STORE, JSON.stringify(corrections));
  } catch {
    // then they are there until the page is closed
  }
  showCorrections();
}

function showCorrections() {
  const count = corrections.length;
  find(".corrections").hidden = !count;
  find(".corrections p").textContent =
    `${count} ${count === 1 ? "digit" : "digits"} with your label, in this browser only.`;
}

function labelButtons(digit) {
  const url = cutOut(digit);
  const buttons = [...Array(10).keys()].map((label) => {
    const button = make("button", label);
    button.type = "button";
    button.addEventListener("click", () => {
      const taken = corrections.find((one) => one.url === url)?.label === label;
      corrections = corrections.filter((one) => one.url !== url);
      if (!taken) corrections.push({ label, url });
      storeCorrections();
      press();
    });
    return button;
  });
  const press = () => {
    const label = corrections.find((one) => one.url === url)?.label;
    buttons.forEach((button, number) => button.setAttribute("aria-pressed", number === label));
  };
  press();
  return buttons;
}

// ---- cutting out

// The digit as it was drawn or photographed, with what is around it, as the data URL of a PNG.
function cutOut(digit) {
  const image = state.photo ? state.photo.image : canvas;
  if (!image) return "";
  const [left, top, right, bottom] = surroundings(digit);
  const zoom = (image.naturalWidth ?? image.width) / paperSize()[0]; // a preview has fewer pixels than the picture
  const side = Math.max(right - left, bottom - top);
  const scale = Math.min(Math.max(CUT_OUT_SIDE[0] / side, zoom), CUT_OUT_SIDE[1] / side);
  const cut = document.createElement("canvas");
  cut.width = Math.round((right - left) * scale);
  cut.height = Math.round((bottom - top) * scale);
  const context = cut.getContext("2d");
  context.imageSmoothingQuality = "high";
  const source = [left * zoom, top * zoom, (right - left) * zoom, (bottom - top) * zoom];
  context.drawImage(image, ...source, 0, 0, cut.width, cut.height);
  return cut.toDataURL("image/png");
}

// The box of `digit` with a margin, which ends halfway to the next digit on each side.
function surroundings(digit) {
  const [left, top, right, bottom] = digit.box;
  const [width, height] = paperSize();
  const margin = MARGIN * Math.max(right - left, bottom - top);
  const room = { left: Math.min(margin, left), top: Math.min(margin, top), right: Math.min(margin, width - right), bottom: Math.min(margin, height - bottom) };
  for (const { box } of shownDigits()) {
    const gaps = { left: left - box[2], top: top - box[3], right: box[0] - right, bottom: box[1] - bottom };
    const [side, gap] = Object.entries(gaps).sort((a, b) => b[1] - a[1])[0]; // the side that it is on, and how far
    if (gap >= 0) room[side] = Math.min(room[side], gap / 2);
  }
  return [left - room.left, top - room.top, right + room.right, bottom + room.bottom].map(Math.round);
}

// ---- the zip file

function downloadCorrections() {
  const counts = {};
  const files = corrections.map(({ label, url }) => {
    counts[label] = (counts[label] ?? 0) + 1;
    const bytes = Uint8Array.from(atob(url.split(",")[1]), (letter) => letter.charCodeAt(0));
    return { name: `${label}/${counts[label]}.png`, bytes };
  });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(zip(files));
  link.download = "digits.zip";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// `files` as one zip file, stored as they are: PNGs are compressed. The format: PKWARE's APPNOTE.TXT, 4.3 and 4.4.
function zip(files) {
  const encoder = new TextEncoder();
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, bytes } of files) {
    const path = encoder.encode(name);
    const common = [20, 0, 0, 0, 33, crc32(bytes), bytes.length, bytes.length, path.length, 0]; // 33: 1 January 1980
    const sizes = [2, 2, 2, 2, 2, 4, 4, 4, 2, 2];
    const local = littleEndian([0x04034b50, ...common], [4, ...sizes]);
    parts.push(local, path, bytes);
    directory.push(littleEndian([0x02014b50, 20, ...common, 0, 0, 0, 0, offset], [4, 2, ...sizes, 2, 2, 2, 4, 4]), path);
    offset += local.length + path.length + bytes.length;
  }
  const length = directory.reduce((sum, part) => sum + part.length, 0);
  const end = [0x06054b50, 0, 0, files.length, files.length, length, offset, 0];
  return new Blob([...parts, ...directory, littleEndian(end, [4, 2, 2, 2, 2, 4, 4, 2])], { type: "application/zip" });
}

function littleEndian(values, sizes) {
  return Uint8Array.from(values.flatMap((value, i) => [...Array(sizes[i]).keys()].map((byte) => (value >>> (8 * byte)) & 255)));
}

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ -1) >>> 0;
}
