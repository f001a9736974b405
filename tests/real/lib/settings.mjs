// Where everything is. Ports are fixed: the gateway's allowed origins, the
// self-signed certificate and the defaults of holdline all name them.

import { fileURLToPath } from "node:url";
import { dirname, join } from "node:path";

export const here = dirname(dirname(fileURLToPath(import.meta.url)));
export const repository = dirname(dirname(here));

export const gatewayPort = 3001;
export const tlsPort = 8443;
export const adminPort = 9180;

/** The shared secret of the throwaway gateway. It never leaves this machine. */
export const token = "only-for-the-tests-0123456789abcdef";

/** Where the gateway reads who it is, when that is decided in front of it. */
export const userHeader = "x-forwarded-user";
/** Somebody who may do everything, in front of the Control UI and behind the programs here. */
export const person = { name: "nick@example.com", password: "correct horse, battery: staple" };
/** Somebody else, with a token of their own, who may only look. */
export const reader = { name: "reader@example.com" };
/** Who asks the gateway itself, past every proxy. No user of any road. */
export const witness = { name: "witness@example.com" };

export const openclaw = join(here, "node_modules/openclaw/openclaw.mjs");
export const chromium = process.env.CHROMIUM_BIN ?? "/usr/bin/chromium";
export const holdline =
  process.env.HOLDLINE_BIN ?? join(process.env.CARGO_TARGET_DIR ?? join(repository, "target"), "release/holdline");
