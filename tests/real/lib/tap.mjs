// A wire between a proxy and the gateway that can go deaf: what the gateway
// says is then lost on the way, while it still hears and does everything. That
// is how "it happened, but nobody was told" is made on purpose.

import { createServer, connect } from "node:net";

import { atEnd } from "./cleanup.mjs";
import { gatewayPort } from "./settings.mjs";

export async function openTap() {
  let deaf = false;
  const sockets = new Set();
  const server = createServer((near) => {
    const far = connect({ host: "127.0.0.1", port: gatewayPort });
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.once("close", () => sockets.delete(socket));
    }
    near.on("data", (bytes) => far.write(bytes));
    far.on("data", (bytes) => deaf || near.write(bytes));
    // An end on one side is an end on the other; a reset stays a reset.
    for (const [one, other] of [[near, far], [far, near]]) {
      one.once("end", () => other.end());
      one.once("error", () => other.resetAndDestroy());
      one.once("close", () => other.destroy());
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = atEnd(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return {
    port: server.address().port,
    goDeaf: () => (deaf = true),
    hear: () => (deaf = false),
    close,
  };
}
