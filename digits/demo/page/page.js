// What the page does; Gradio runs it when the page is there, after the other scripts of this folder, in the same scope.
// `element` is the page, and `props.most_bytes` the longest picture in bytes.

// What is on the paper has changed: show the answer to it, or that there is none yet.
function showState() {
  if (isEmpty()) {
    showMessage("");
    setStale(false);
  } else if (state.reply) {
    showReply(state.reply);
  } else {
    setStale(true);
    if (shown?.origin !== state.origin) showMessage("");
  }
}

// ---- pictures

function choose(file) {
  if (!file) return;
  if (file.size > props.most_bytes) {
    change(blank());
    showMessage(`This file is larger than ${Math.round(props.most_bytes / 1e6)} MB.`);
    return;
  }
  const photo = { file };
  const url = URL.createObjectURL(file);
  photo.opening = loadImage(photo, url)
    .catch(() => {}) // the server may send a preview
    .finally(() => URL.revokeObjectURL(url));
  change({ ...blank(), photo });
}

for (const input of element.querySelectorAll(".choose input")) {
  input.addEventListener("change", () => {
    choose(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
}
for (const image of element.querySelectorAll(".examples img")) {
  image.parentElement.addEventListener("click", async () => choose(await (await fetch(image.src)).blob()));
}
document.addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
window.addEventListener("dragover", (event) => {
  event.preventDefault(); // else the browser would leave the page to show the picture
  paper.classList.add("drag-over");
});
window.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) paper.classList.remove("drag-over");
});
window.addEventListener("drop", (event) => {
  event.preventDefault();
  paper.classList.remove("drag-over");
  choose(event.dataTransfer.files[0]);
});

// ---- buttons

find(".undo").addEventListener("click", undo);
document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.shiftKey || event.key.toLowerCase() !== "z") return;
  event.preventDefault();
  undo();
});
find(".clear").addEventListener("click", () => {
  if (isEmpty()) showMessage("");
  else change(blank());
});
find(".copy").addEventListener("click", async () => {
  const copied = await copyText(find(".answer").innerText.replaceAll("?", ""));
  find(".copy").textContent = copied ? "Copied" : "Not copied";
  await pause(1500);
  find(".copy").textContent = "Copy";
});

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text); // there is none where the page comes by http from another machine
    return true;
  } catch {
    const area = make("textarea", text);
    element.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

find(".download").addEventListener("click", downloadCorrections);
find(".forget").addEventListener("click", () => {
  corrections = [];
  storeCorrections();
  showDigits(shown);
});

find(".camera").hidden = !navigator.maxTouchPoints; // what has a touch screen has a camera, mostly
showCorrections();
setState(blank());
