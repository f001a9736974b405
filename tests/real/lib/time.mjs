// Waiting for things, and one clock for all that is measured.

/** Milliseconds since the epoch, with fractions, never going backwards. */
export const now = () => performance.timeOrigin + performance.now();

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Waits until `condition` gives something truthy and returns that. Throws, and
 * says what it was waiting for, when `within` milliseconds are over.
 */
export async function until(what, condition, { within = 60_000, every = 10 } = {}) {
  const deadline = now() + within;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (now() > deadline) throw new Error(`gave up after ${within / 1000} s waiting for ${what}`);
    await pause(every);
  }
}

/** `1234` as "1.23 s", `undefined` as "-". */
export const seconds = (ms) => (ms === undefined || Number.isNaN(ms) ? "-" : `${(ms / 1000).toFixed(2)} s`);
