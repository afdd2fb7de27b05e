// What the JavaScript clients make of the same bytes:
//   node oracle.mjs hash KEY_HEX FILE...                    one line of JSON for each file
//   node oracle.mjs download ENDPOINT REPO PATH OUT         through @huggingface/hub, over Xet
import { readFile, writeFile } from "node:fs/promises";
import { downloadFile } from "@huggingface/hub";
import {
	fileHash,
	getChunks,
	hashToHex,
	hexToBytes,
	hmac,
	verificationHash,
	xorbHash,
} from "@huggingface/xetchunk-wasm";

async function hash(keyHex, ...files) {
	const key = hexToBytes(keyHex);
	for (const file of files) {
		const chunks = getChunks(await readFile(file)).filter((chunk) => chunk.length > 0);
		const some = chunks.length > 0;
		console.log(
			JSON.stringify({
				lengths: chunks.map((chunk) => chunk.length),
				chunks: chunks.map((chunk) => hashToHex(chunk.hash)),
				keyed: chunks.map((chunk) => hashToHex(hmac(chunk.hash, key))),
				xorb: some ? hashToHex(xorbHash(chunks)) : null,
				file: some ? hashToHex(fileHash(chunks)) : null,
				verification: some ? hashToHex(verificationHash(chunks.map((chunk) => chunk.hash))) : null,
			}),
		);
	}
}

async function download(endpoint, repo, path, out) {
	const blob = await downloadFile({ repo, path, hubUrl: endpoint, accessToken: "hf_any" });
	if (blob === null) throw new Error(`${path} is not in ${repo}`);
	await writeFile(out, Buffer.from(await blob.arrayBuffer()));
}

const [command, ...rest] = process.argv.slice(2);
await { hash, download }[command](...rest);
