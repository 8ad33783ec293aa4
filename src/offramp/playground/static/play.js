// The page at every state is made by the server, at the address of that state. This script fetches the page again when
// something changes, and takes over the parts that may differ.
const form = document.forms[0];
const part = (id) => document.getElementById(id);
let running = false; // a request is under way
let wanted = new Set(); // parts to refresh by the next request
let attack = null; // the stream of a running attack
let later = 0; // timer of what may wait until the typing pauses

const address = () => "?" + new URLSearchParams(new FormData(form));

async function refresh(...ids) {
  ids.forEach((id) => wanted.add(id));
  if (running) return; // one request at a time: the next one takes the newest state
  running = true;
  try {
    while (wanted.size) {
      const parts = wanted;
      wanted = new Set();
      const response = await fetch(address());
      if (!response.ok) throw new Error(`the server answers ${response.status}`);
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      if (!attack) parts.forEach((id) => replace(id, page.getElementById(id)));
    }
    settle();
  } catch (error) {
    report(`The playground does not answer (${error.message}): see the terminal that runs it.`);
  } finally {
    running = false;
  }
}

function replace(id, content) {
  const position = part(id).contains(document.activeElement) ? [...form.elements].indexOf(document.activeElement) : -1;
  part(id).replaceWith(content);
  if (position >= 0) form.elements[position]?.focus();
}

function report(message) {
  const line = document.createElement("p");
  line.className = "problem";
  line.role = "alert";
  line.textContent = message;
  part("result").prepend(line);
}

// Browsers limit how often an address may change, and a screen reader should not speak at every key.
function settle() {
  clearTimeout(later);
  later = setTimeout(() => {
    history.replaceState(null, "", address());
    part("status").textContent = [...document.querySelectorAll(".answer")].map((line) => line.textContent).join(" ");
  }, 400);
}

function start() {
  stop();
  attack = new EventSource("attack" + address());
  const show = (event) => replace("result", new DOMParser().parseFromString(JSON.parse(event.data), "text/html").body.firstChild);
  attack.addEventListener("step", show);
  attack.addEventListener("end", (event) => {
    stop();
    show(event);
    settle();
  });
  attack.onerror = () => {
    stop();
    report("The attack broke off: see the terminal that runs the playground.");
  };
  toggle();
}

function stop() {
  attack?.close();
  attack = null;
  toggle();
}

function toggle() {
  part("attack").hidden = attack !== null;
  part("stop").hidden = attack === null;
}

form.addEventListener("input", (event) => {
  const { name, type, tagName } = event.target;
  if (name === "words" || name === "recipe") return settle();
  stop();
  if (type === "range") event.target.nextElementSibling.value = event.target.value;
  if (name === "threshold" && event.target.value) event.target.previousElementSibling.value = event.target.value;
  if (name === "model" || name === "rule") event.target.closest("fieldset").querySelector("[name=threshold]").value = "";
  refresh("result", ...(tagName === "SELECT" ? ["settings"] : []));
});
form.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("click", async (event) => {
  const { id, dataset } = event.target;
  if (id === "attack") start();
  if (id === "stop") {
    stop();
    if (part("progress")) part("progress").textContent = ", stopped";
    settle();
  }
  if (id === "copy") {
    history.replaceState(null, "", address());
    await navigator.clipboard.writeText(location.href);
    event.target.textContent = "Copied";
    setTimeout(() => (event.target.textContent = "Copy link"), 1500);
  }
  if (id === "use") {
    form.elements.text.value = dataset.text;
    if (form.elements.text_pair) form.elements.text_pair.value = dataset.textPair;
    refresh("result");
  }
});
// Only pages of this machine or over HTTPS may write to the clipboard; the address bar has the link anyway.
if (!navigator.clipboard) part("copy").hidden = true;
