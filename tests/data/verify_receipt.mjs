// Checks an envelope with WebCrypto alone, as a dashboard in a browser would: node verify_receipt.mjs ENVELOPE KEYS
import { readFileSync } from "node:fs";
import { webcrypto } from "node:crypto";

const [envelope, { keys }] = process.argv.slice(2).map((path) => JSON.parse(readFileSync(path, "utf8")));
const bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const text = new TextEncoder();

const payload = bytes(envelope.payload);
const type = text.encode(envelope.payloadType);
const head = text.encode(`DSSEv1 ${type.length} ${envelope.payloadType} ${payload.length} `);
const signed = new Uint8Array([...head, ...payload]);

const holds = await Promise.all(
  envelope.signatures.map(async ({ keyid, sig }) => {
    const known = keys.find((key) => key.key_id === keyid && !key.revoked_at);
    if (!known) return false;
    const der = bytes(known.public_key_pem.replace(/-----[^-]+-----|\s/g, ""));
    const key = await webcrypto.subtle.importKey("spki", der, { name: "Ed25519" }, false, ["verify"]);
    return webcrypto.subtle.verify({ name: "Ed25519" }, key, bytes(sig), signed);
  }),
);
console.log(JSON.parse(new TextDecoder().decode(payload)).predicate.job_id);
process.exit(holds.some(Boolean) ? 0 : 1);
