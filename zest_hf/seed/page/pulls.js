// Downloads that the seeder does for the page: the form, and how far they are.

import { duration, plural, printable, size } from "./format.js";

const SOURCES = [["peer", "from peers"], ["cdn", "from the CDN"], ["local", "from this machine"]];

export class Pulls {
  constructor(form, error, list) {
    this.form = form;
    this.error = error;
    this.list = list;
    this.items = new Map();
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
    });
  }

  async start() {
    const fields = Object.fromEntries([...new FormData(this.form)].filter(([, value]) => value.trim()));
    for (const key of Object.keys(fields)) fields[key] = fields[key].trim();
    if (await this.ask("v1/pull", fields)) this.form.elements.repo.value = "";
  }

  async ask(path, fields) {
    let reason = "";
    try {
      const headers = { "Content-Type": "application/json" };
      const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(fields) });
      if (!answer.ok) reason = (await answer.json()).error;
      // How it goes comes with the status, for everybody who looks.
      else await answer.body.cancel();
    } catch {
      reason = "the seeder does not answer";
    }
    this.error.textContent = reason;
    this.error.hidden = !reason;
    return !reason;
  }

  show(pulls) {
    const items = new Map();
    const seen = new Map();
    for (const pull of pulls) {
      const name = `${pull.repo_type} ${pull.repo}`;
      seen.set(name, (seen.get(name) ?? 0) + 1);
      const key = `${name} ${pulls.filter((one) => one.repo === pull.repo && one.repo_type === pull.repo_type).length - seen.get(name)}`;
      const item = this.items.get(key) ?? this.make();
      this.fill(item, pull);
      items.set(key, item);
    }
    for (const [key, item] of this.items) if (!items.has(key)) item.remove();
    let at = this.list.firstChild;
    for (const item of items.values()) {
      if (item === at) at = at.nextSibling;
      else this.list.insertBefore(item, at);
    }
    this.items = items;
  }

  make() {
    const item = document.createElement("li");
    item.append(...["strong", "button", "progress", "p"].map((name) => document.createElement(name)));
    const [, button] = item.children;
    button.type = "button";
    button.textContent = "Stop";
    return item;
  }

  fill(item, pull) {
    const [name, button, progress, words] = item.children;
    const kind = pull.repo_type === "model" ? "" : `${pull.repo_type}s/`;
    name.textContent = printable(kind + pull.repo + (pull.revision ? ` at ${pull.revision}` : ""));
    item.dataset.state = pull.state;
    const running = pull.state === "running";
    button.hidden = progress.hidden = !running;
    button.setAttribute("aria-label", `Stop the download of ${pull.repo}`);
    button.onclick = () => this.ask("v1/pull/stop", { repo: pull.repo, repo_type: pull.repo_type });
    progress.setAttribute("aria-label", `Download of ${pull.repo}`);
    if (pull.size) [progress.max, progress.value] = [pull.size, pull.done];
    else progress.removeAttribute("value");
    const text = words_of(pull);
    if (words.textContent !== text) words.textContent = text;
  }
}

function words_of(pull) {
  const words = [];
  if (pull.state === "failed") return `failed: ${printable(pull.error)}`;
  if (pull.state === "running") words.push(pull.size ? `${size(pull.done)} of ${size(pull.size)}` : "asking the Hub");
  else words.push(pull.state === "done" ? `complete after ${duration(pull.seconds)}` : "stopped; it goes on from here next time");
  if (pull.files) words.push(`${pull.files_done} of ${plural(pull.files, "file")}`);
  for (const [source, title] of SOURCES) if (pull.bytes[source]) words.push(`${size(pull.bytes[source])} ${title}`);
  if (pull.before) words.push(`${size(pull.before)} was there`);
  return words.join(", ");
}
