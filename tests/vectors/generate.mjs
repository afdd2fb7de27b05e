// Writes codec.json without the members "file"; see README.md.
import { createHash } from "node:crypto";
import { fileHash, getChunks, hashToHex, verificationHash, xorbHash } from "@huggingface/xetchunk-wasm";

function block(label, counter) {
	const suffix = Buffer.alloc(4);
	suffix.writeUInt32LE(counter);
	return createHash("sha256").update(label).update(suffix).digest();
}

function stream(label, size) {
	const blocks = [];
	for (let i = 0; i * 32 < size; i++) blocks.push(block(label, i));
	return Buffer.concat(blocks).subarray(0, size);
}

function input(kind, label, size) {
	if (kind === "zeros") return Buffer.alloc(size);
	if (kind === "repeat") return Buffer.alloc(size, stream(label, 1000));
	const data = stream(label, size);
	if (kind === "weights") for (let i = 1; i < size; i += 2) data[i] = 60 + (data[i] % 4);
	return data;
}

const zero = "0".repeat(64);
const data = [];
for (const [kind, sizes] of [
	["random", [0, 1, 63, 8191, 8192, 8193, 65536, 131071, 131072, 131073, 1000003, 6000000]],
	["zeros", [131072, 131073, 400000]],
	["weights", [100001, 2000000]],
	["repeat", [500000]],
]) {
	for (const size of sizes) {
		const label = `${kind}-${size}`;
		const chunks = getChunks(input(kind, label, size)).filter((chunk) => chunk.length > 0);
		let end = 0;
		data.push({
			kind,
			label,
			size,
			early_ends: chunks.map((chunk) => (end += chunk.length)),
			first_chunk: chunks.length ? hashToHex(chunks[0].hash) : zero,
			early_xorb: chunks.length ? hashToHex(xorbHash(chunks)) : zero,
			early_file: chunks.length ? hashToHex(fileHash(chunks)) : zero,
			file: zero,
		});
	}
}

const lists = [];
for (const count of [1, 2, 3, 4, 8, 9, 10, 11, 18, 19, 27, 28, 100, 1000, 8192]) {
	const label = `list-${count}`;
	const chunks = [];
	for (let i = 0; i < count; i++) {
		const hash = block(label, i);
		chunks.push({ hash: new Uint8Array(hash), length: 1 + (hash.readUInt32LE(0) % 131072) });
	}
	lists.push({
		label,
		count,
		xorb: hashToHex(xorbHash(chunks)),
		file: hashToHex(fileHash(chunks)),
		verification: hashToHex(verificationHash(chunks.map((chunk) => chunk.hash))),
	});
}
console.log(JSON.stringify({ data, lists }, null, "\t").replace(/\n\t{4}(\d+)/g, " $1").replace(/(\d)\n\t{3}\]/g, "$1 ]"));
