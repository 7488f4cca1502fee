// The page of `fastq serve`. It asks this server and nothing else. Text of the model is never read as HTML.
"use strict";

const element = (id) => document.getElementById(id);
const numbers = ["temperature", "top_k", "top_p", "min_p", "repeat_penalty", "max_tokens", "seed"];

/** The conversation, as the server gets it. */
let messages = [];
/** Stops the answer that is being written. */
let answering = null;

function headers() {
  const key = element("key").value;
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Settings outlast the page, but for the key: what is stored, every program of the user can read. */
function remember() {
  const settings = { system: element("system").value };
  for (const id of numbers) settings[id] = element(id).value;
  try { localStorage.setItem("fastq", JSON.stringify(settings)); } catch { /* not allowed to store: it works without */ }
}

function recall() {
  try {
    const settings = JSON.parse(localStorage.getItem("fastq") ?? "{}");
    for (const [id, value] of Object.entries(settings)) {
      if ([...numbers, "system"].includes(id)) element(id).value = value;
    }
  } catch { /* nothing that can be read: the defaults stay */ }
}

/** Adds a message to the page; its element. */
function show(role, text) {
  const item = document.createElement("li");
  item.className = role;
  item.textContent = text;
  element("messages").append(item);
  item.scrollIntoView({ block: "end" });
  return item;
}

function bytes(n) {
  if (n === null || n === undefined) return "?";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return `${n.toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

function count(n) {
  return n >= 1e9 ? `${(n / 1e9).toFixed(2)} B` : n >= 1e6 ? `${(n / 1e6).toFixed(1)} M` : n.toLocaleString("en");
}

/** Asks for the facts about the model and shows them. */
async function facts() {
  let model;
  try {
    const response = await fetch("v1/models", { headers: headers() });
    const body = await response.json();
    if (!response.ok) throw new Error(body.error.message);
    model = body.data[0];
  } catch (error) {
    element("facts").replaceChildren();
    element("model").textContent = `fastq: ${error.message}`;
    return;
  }
  const info = model.fastq;
  element("model").textContent = model.id;
  document.title = `${model.id} – fastq`;
  const rows = [
    ["Name", info.name], ["Architecture", info.architecture], ["Weights", count(info.parameters)],
    ["Bits per weight", info.bits_per_weight.toFixed(2)], ["File", bytes(info.file_bytes)], ["Layers × width", `${info.layers} × ${info.width}`],
    ["Vocabulary", count(info.vocabulary)], ["Context", `${count(info.context)} of ${count(info.trained_context)}`],
    ["Memory now", bytes(info.resident_bytes)], ["Memory at most", bytes(info.peak_resident_bytes)],
    [`KV cache (${info.kv})`, bytes(info.kv_bytes)], ["Threads", `${info.threads} (${info.level})`], ["fastq", info.version],
  ];
  element("facts").replaceChildren(...rows.flatMap(([name, value]) => {
    const [term, description] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    description.textContent = value;
    return [term, description];
  }));
}

/** The events of a stream, one after the other. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

function request() {
  const system = element("system").value.trim();
  const body = {
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    stream: true,
    stream_options: { include_usage: true },
  };
  for (const id of numbers) {
    const value = element(id).value;
    if (value !== "") body[id] = Number(value);
  }
  return body;
}

/** Tells how quick the answer is: while it comes by the clock, at its end by what the server measured. */
function speed(tokens, seconds, end) {
  element("speed").textContent = seconds > 0 && tokens > 0 ? `${(tokens / seconds).toFixed(1)} tokens/s${end ?? ""}` : "";
}

async function answer() {
  // What the model thinks stands before its answer, and is not part of the conversation.
  const thought = show("thought", "");
  thought.hidden = true;
  const item = show("assistant", "");
  item.classList.add("writing");
  const list = element("messages");
  answering = new AbortController();
  element("send").hidden = true;
  element("stop").hidden = false;
  let text = "", pieces = 0, first = 0;
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers() },
      body: JSON.stringify(request()),
      signal: answering.signal,
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const event of events(response.body)) {
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      const { content, reasoning_content: reasoning } = choice?.delta ?? {};
      if (content || reasoning) {
        // Who has scrolled up is reading and stays there.
        const follow = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
        if (reasoning) { thought.hidden = false; thought.textContent += reasoning; }
        if (content) { text += content; item.textContent = text; }
        if (follow) list.scrollTop = list.scrollHeight;
        first ||= performance.now();
        pieces += 1;
        speed(pieces - 1, (performance.now() - first) / 1000);
      }
      if (choice?.finish_reason === "length") show("note", "(the answer reached its limit of tokens)");
      const timings = event.timings;
      if (timings) speed(timings.decode_tokens, timings.decode_seconds, `, ${timings.decode_tokens + 1} tokens`);
    }
  } catch (error) {
    if (error.name !== "AbortError") show("error", error.message);
  } finally {
    item.classList.remove("writing");
    answering = null;
    element("send").hidden = false;
    element("stop").hidden = true;
    // An answer that was stopped stays in the conversation as far as it came; a question without any is taken back.
    if (text) messages.push({ role: "assistant", content: text });
    else { messages.pop(); item.remove(); }
    if (thought.hidden) thought.remove();
    facts();
  }
}

function send() {
  const text = element("text").value.trim();
  if (!text || answering) return;
  if (!element("settings").checkValidity()) {
    settings(true);
    element("settings").reportValidity();
    return;
  }
  remember();
  element("text").value = "";
  messages.push({ role: "user", content: text });
  show("user", text);
  answer();
}

function stop() {
  answering?.abort();
}

function anew() {
  stop();
  messages = [];
  element("messages").replaceChildren();
  element("speed").textContent = "";
  element("text").focus();
}

function settings(open) {
  element("side").hidden = !open;
  element("toggle").setAttribute("aria-expanded", String(open));
  if (open) facts();
}

element("ask").addEventListener("submit", (event) => { event.preventDefault(); send(); });
element("settings").addEventListener("submit", (event) => event.preventDefault());
element("settings").addEventListener("change", (event) => { remember(); if (event.target.id === "key") facts(); });
element("stop").addEventListener("click", stop);
element("new").addEventListener("click", anew);
element("toggle").addEventListener("click", () => settings(element("side").hidden));
element("text").addEventListener("keydown", (event) => {
  // While an input method composes, Enter chooses a character.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
document.addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLInputElement;
  if (event.key === "Escape") {
    if (answering) stop();
    else if (matchMedia("(max-width: 46rem)").matches) settings(false);
    element("text").focus();
  } else if (event.altKey && event.code === "KeyN") { event.preventDefault(); anew(); }
  else if (event.altKey && event.code === "KeyS") { event.preventDefault(); settings(element("side").hidden); }
  else if (event.key === "/" && !typing) { event.preventDefault(); element("text").focus(); }
});

recall();
settings(matchMedia("(min-width: 60rem)").matches);
facts();
