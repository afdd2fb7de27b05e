// The page: what the seeder's events say goes to its places. Everything is set as text, so that names can be anything.

import { duration, plural, printable, rate, ratio, size } from "./format.js";
import { Live } from "./live.js";
import { Plot } from "./plot.js";
import { Pulls } from "./pulls.js";
import { Table } from "./table.js";

const $ = (id) => document.getElementById(id);
const put = (id, text) => {
  if ($(id).textContent !== text) $(id).textContent = text;
};

const bytesTable = new Table(
  $("bytes"),
  [
    { title: "", text: (row) => row.title },
    { title: "This run", number: true, text: (row) => row.text(row.run) },
    { title: "Today", number: true, text: (row) => row.text(row.today) },
    { title: "All time", number: true, text: (row) => row.text(row.all) },
  ],
  (row) => row.title,
);
const modelsTable = new Table(
  $("models"),
  [
    { title: "Repository", name: true, text: nameOf },
    { title: "Type", wide: true, text: (row) => row.repo_type },
    { title: "Revision", wide: true, short: true, text: revisionOf, tip: (row) => row.revisions.map(({ commit }) => commit).join("\n") },
    { title: "Files", number: true, wide: true, text: (row) => row.files, value: (row) => row.files },
    { title: "Size", number: true, text: (row) => size(row.size), value: (row) => row.size },
    { title: "Peers", number: true, text: (row) => row.peers, value: (row) => row.peers },
    { title: "Uploaded", number: true, text: (row) => size(row.uploaded), value: (row) => row.uploaded },
  ],
  (row) => JSON.stringify([row.endpoint, row.repo_type, row.repo]),
  [0, 1],
);
const peersTable = new Table(
  $("peers"),
  [
    { title: "Address", name: true, text: (row) => row.address, tip: (row) => row.node_id },
    { title: "Program", wide: true, text: (row) => row.client },
    { title: "Found by", wide: true, text: (row) => row.found_by },
    { title: "Since", number: true, wide: true, text: (row) => duration(row.connected_seconds), value: (row) => row.connected_seconds },
    { title: "Has", number: true, text: heldBy, value: (row) => row.holds ?? -1, tip: () => "Of the files that it downloads and that are offered here, as it says" },
    { title: "To it", number: true, text: (row) => rate(row.up_bytes_s), value: (row) => row.up_bytes_s },
    { title: "From it", number: true, wide: true, text: (row) => rate(row.down_bytes_s), value: (row) => row.down_bytes_s },
    { title: "Sent", number: true, text: (row) => size(row.bytes_up), value: (row) => row.bytes_up },
    { title: "Received", number: true, wide: true, text: (row) => size(row.bytes_down), value: (row) => row.bytes_down },
  ],
  (row) => String(row.connection),
  [7, -1],
);
const bannedTable = new Table(
  $("banned"),
  [
    { title: "Address", name: true, text: (row) => row.address, tip: (row) => row.node_id },
    { title: "Reason", name: true, text: (row) => row.reason },
  ],
  (row) => JSON.stringify(row),
);
const plot = new Plot($("plot"));
const pulls = new Pulls($("pull"), $("pull-error"), $("pulls"));
const KINDS = [
  ["Peers", (of) => size(of.peer)],
  ["CDN", (of) => size(of.cdn)],
  ["This machine", (of) => size(of.local)],
  ["Uploaded", (of) => size(of.uploaded)],
  ["Ratio", (of) => ratio(of.ratio)],
];
let kind = "starting";
let models = { total: 0, models: [] };

function nameOf(row) {
  return row.repo_type === "model" ? row.repo : `${row.repo_type}s/${row.repo}`;
}

function revisionOf(row) {
  const [latest, ...others] = row.revisions;
  if (!latest) return "–";
  const more = others.length ? ` and ${others.length} more` : "";
  return [...latest.names, latest.commit.slice(0, 7)].join(" ") + more;
}

function showStatus(status) {
  kind = !status.ready ? "starting" : status.uploads.paused ? "quiet" : "live";
  put("up", rate(status.rates.up_bytes_s));
  put("down", rate(status.rates.down_bytes_s));
  put("peer-count", String(status.peers_connected));
  put("offered", size(status.size));
  put("offered-more", plural(status.files, "file"));
  const { today, all_time: all } = status.traffic;
  put("ratio", ratio(all.ratio));
  put("ratio-more", `today ${ratio(today.ratio)}`);
  const run = { ...status.bytes, ratio: null };
  if (run.peer + run.cdn) run.ratio = run.uploaded / (run.peer + run.cdn);
  bytesTable.show(KINDS.map(([title, text]) => ({ title, text, run, today, all })));
  const total = all.local + all.peer + all.cdn;
  const share = (part) => `${Math.round((100 * part) / total)} %`;
  put("shares", total ? `Of all downloads ${share(all.peer)} came from peers and ${share(all.local)} from this machine.` : "");
  pulls.show(status.pulls);
  showDiscovery(status.discovery, status.keyed);
  const wrong = status.chunks_wrong ? `, ${plural(status.chunks_wrong, "wrong chunk")} refused` : "";
  put("footer", `zest_hf ${status.version}, node ${status.node_id}, peers connect to ${status.listen}, up ${duration(status.uptime_seconds)}${wrong}`);
}

function showDiscovery(ways, keyed) {
  const names = [];
  if (ways.given.length) names.push(plural(ways.given.length, "given address", "given addresses"));
  if (ways.lsd) names.push("the local network");
  if (ways.dht) names.push(`the DHT (${plural(ways.dht_nodes, "node")})`);
  for (const tracker of ways.trackers) names.push(tracker.url);
  const found = names.length ? `Peers are found by ${names.join(", ")}` : "No peers are looked for: ZEST_LSD, ZEST_DHT and ZEST_TRACKERS are off";
  put("discovery", `${found}${keyed ? "; only those with the swarm's key" : ""}.`);
  const failing = ways.trackers.filter((tracker) => tracker.working === false);
  const lines = failing.map((tracker) => printable(`${tracker.url} does not work: ${tracker.message}`));
  const list = $("problems");
  if (lines.join("\n") === [...list.children].map((item) => item.textContent).join("\n")) return;
  list.replaceChildren(...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
}

function showModels(news = models) {
  models = news;
  const wanted = $("filter").value.trim().toLowerCase();
  const shown = models.models.filter((row) => nameOf(row).toLowerCase().includes(wanted));
  modelsTable.show(shown);
  $("models").hidden = !shown.length;
  $("models-empty").hidden = models.total > 0;
  $("filter").hidden = models.total <= 10 && !wanted;
  put("models-count", shown.length === models.total ? countOf(models.total) : `${shown.length} of ${models.total}`);
}

// Rounded down: what is all but complete is not complete.
function heldBy({ holds }) {
  return holds === null ? "–" : `${Math.floor(100 * holds)} %`;
}

const countOf = (total) => (total ? String(total) : "");

function showPeers({ total, peers, banned_total: bannedTotal, banned }) {
  peersTable.show(peers);
  $("peers").hidden = !peers.length;
  $("peers-empty").hidden = total > 0;
  put("peers-count", peers.length === total ? countOf(total) : `${peers.length} of ${total}`);
  $("banned-section").hidden = !bannedTotal;
  bannedTable.show(banned);
  put("banned-count", banned.length === bannedTotal ? countOf(bannedTotal) : `the last ${banned.length} of ${bannedTotal}`);
}

const WORDS = { live: "seeding", starting: "starting", quiet: "quiet hours", lost: "connection lost, trying again", ended: "stopped" };

function setState(state) {
  $("state").dataset.state = state;
  put("state", WORDS[state === "live" ? kind : state]);
  document.body.classList.toggle("stale", state !== "live");
  for (const button of document.querySelectorAll("button")) button.disabled = state === "ended";
}

const live = new Live(
  "v1/events",
  { status: showStatus, models: showModels, peers: showPeers, history: (history) => plot.show(history) },
  setState,
);

$("filter").addEventListener("input", () => showModels());
$("stop").addEventListener("click", async () => {
  if (!confirm("Stop the seeder? Peers will not get anything from this machine until it is started again.")) return;
  const answer = await fetch("v1/stop", { method: "POST" }).catch(() => null);
  if (!answer?.ok) return;
  live.end();
  setState("ended");
});
