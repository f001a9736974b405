// A paired device's key, as the official client wants it from its host program.

import { createHash, createPublicKey, generateKeyPairSync, sign } from "node:crypto";

const rawPublicKey = (pem) => createPublicKey(pem).export({ type: "spki", format: "der" }).subarray(-32);

export function newDevice() {
  const pair = generateKeyPairSync("ed25519", {
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
  });
  const deviceId = createHash("sha256").update(rawPublicKey(pair.publicKey)).digest("hex");
  return { deviceId, publicKeyPem: pair.publicKey, privateKeyPem: pair.privateKey };
}

export const deviceSigning = {
  signDevicePayload: (privateKeyPem, payload) => sign(null, Buffer.from(payload), privateKeyPem).toString("base64url"),
  publicKeyRawBase64UrlFromPem: (pem) => rawPublicKey(pem).toString("base64url"),
};
