// The answer: the number, a card for each digit, and why.

const NO_ANSWER = "The server does not answer.";
const GONE = `${NO_ANSWER} Trying again …`;
const ONLY_DIGITS = "Only the digits 0 to 9 are known: anything else may be taken for one.";

const shownDigits = () => shown?.digits ?? [];
let shown; // the reply that is on the page

// ---- what is said

function showMessage(text) {
  find(".answer").textContent = text;
  find(".answer").classList.add("words");
  find(".advice").textContent = "";
  showDigits(undefined);
}

function showReply(reply) {
  setStale(reply !== state.reply);
  if (reply.digits.length) showNumber(reply.digits);
  else showMessage(reply.message);
  showDigits(reply);
  find(".advice").textContent = advice(reply);
}

function showGone() {
  if (shown) find(".advice").textContent = GONE;
  else showMessage(GONE);
}

function setStale(stale) {
  element.classList.toggle("stale", stale);
  find(".answer").setAttribute("aria-busy", stale); // so that it is read out when it is complete
}

function showNumber(digits) {
  const parts = digits.flatMap((digit, index) => {
    const text = digit.sure ? `${digit.value}` : `${digit.value}?`;
    const newRow = index && digit.row !== digits[index - 1].row ? ["\n"] : [];
    return [...newRow, digit.sure ? text : make("span", text, "doubtful")];
  });
  find(".answer").replaceChildren(...parts);
  find(".answer").classList.remove("words");
}

function advice({ digits, cards }) {
  if (!digits.length && state.photo) return "Dark ink on light paper, from near and from above, is read best.";
  if (!digits.length) return "Draw a digit from 0 to 9, as large as you like.";
  const doubtful = digits.some((digit) => !digit.sure) ? [`Orange means not sure. ${ONLY_DIGITS}`] : [];
  const more = digits.length > cards ? [`Below are the first ${cards} of ${digits.length} digits.`] : [];
  return [...doubtful, ...more].join(" ");
}

function showDigits(reply) {
  shown = reply;
  const digits = shownDigits();
  showBoxes(digits);
  find(".copy").hidden = !digits.length;
  find(".cards").replaceChildren(...digits.slice(0, reply?.cards).map(makeCard));
  if (digits.length === 1) openCard(0, true);
}

// ---- cards

const second = ({ probabilities, value }) =>
  probabilities.map((p, other) => [p, other]).filter(([, other]) => other !== value).sort((a, b) => b[0] - a[0])[0];

// "4", or "4? or 9" if it is doubtful and the 9 is likelier than one in a hundred.
function boxText(digit) {
  const [p, other] = second(digit);
  return digit.sure ? `${digit.value}` : p > 0.01 ? `${digit.value}? or ${other}` : `${digit.value}?`;
}

function percent(p) {
  return p >= 0.9995 && p < 1 ? ">99.9 %" : p > 0 && p < 0.0005 ? "<0.1 %" : `${(100 * p).toFixed(1)} %`;
}

// The same for a small card.
function roughly(p) {
  return p > 0.99 ? ">99 %" : p < 0.01 ? "<1 %" : `${Math.round(100 * p)} %`;
}

function makeCard(digit, index) {
  const card = find("template.card").content.firstElementChild.cloneNode(true);
  const [p, other] = second(digit);
  card.classList.toggle("doubtful", !digit.sure);
  card.querySelector(".summary img").src = digit.image;
  card.querySelector(".first b").textContent = digit.sure ? digit.value : `${digit.value}?`;
  card.querySelector(".first span").textContent = roughly(digit.confidence);
  card.querySelector(".second").textContent = `or ${other} ${roughly(p)}`;
  card.querySelector(".summary").addEventListener("click", () => openCard(index, !card.classList.contains("open")));
  card.addEventListener("pointerenter", () => highlight(index));
  card.addEventListener("pointerleave", endHover);
  card.addEventListener("focusin", () => highlight(index));
  return card;
}

function openCard(index, open) {
  const card = find(".cards").children[index];
  if (!card) return;
  card.classList.toggle("open", open);
  card.querySelector(".summary").setAttribute("aria-expanded", open);
  card.querySelector(".details").hidden = !open;
  if (open && !card.querySelector("tr")) fillDetails(card, shownDigits()[index]);
}

function fillDetails(card, digit) {
  const seen = card.querySelector(".seen img");
  seen.src = digit.image;
  seen.alt = `What the network saw of the ${digit.value}`;
  card.querySelector("table").append(...digit.probabilities.map((p, value) => bar(p, value, value === digit.value)));
  card.querySelector(".remark").textContent = remark(digit);
  card.querySelector(".why").addEventListener("click", () => toggleWhy(card, digit));
  card.querySelector(".labels").append(...labelButtons(digit));
}

function bar(p, value, best) {
  const row = make("tr", "", best ? "best" : "");
  const heading = make("th", value);
  heading.scope = "row";
  const cell = make("td");
  cell.append(make("div", "", "bar"));
  cell.firstChild.style.width = `${100 * p}%`;
  row.append(heading, cell, make("td", percent(p)));
  return row;
}

function remark({ value, confidence, probabilities }) {
  if (confidence > 0.999 * probabilities[value]) return "";
  return `Taken for ${percent(confidence)}, as its size or its place is unusual.`;
}

// ---- the digit that is pointed at

function highlight(index) {
  for (const list of [find(".boxes").children, find(".cards").children]) {
    [...list].forEach((one, number) => one.classList.toggle("on", number === index));
  }
}

function endHover(event) {
  if (event.pointerType === "mouse") highlight(undefined); // a finger that has tapped leaves too
}

function select(index) {
  highlight(index);
  find(".cards").children[index]?.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

// ---- why

async function toggleWhy(card, digit) {
  const button = card.querySelector(".why");
  const seen = card.querySelector(".seen img");
  const on = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", on);
  if (on) digit.why ??= await ask(await (await fetch(digit.image)).blob(), `?why=${digit.value}`);
  if (button.getAttribute("aria-pressed") !== String(on)) return; // pressed again meanwhile
  const why = on && digit.why?.image;
  seen.src = why || digit.image;
  seen.alt = why ? `Which ink speaks for the ${digit.value}` : `What the network saw of the ${digit.value}`;
  const meaning = `Blue ink speaks for the ${digit.value}, orange ink against it.`;
  card.querySelector(".remark").textContent = why ? meaning : on ? (digit.why?.message ?? NO_ANSWER) : remark(digit);
}
