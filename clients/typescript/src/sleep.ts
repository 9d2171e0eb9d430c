/** Waiting, until the client is closed. */

import { AnodeError } from "./errors.js";

/** Waits. Rejects at once with `closed` when the signal is aborted. */
export function sleep(waitMs: number, closing: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(new AnodeError("closed", "the client was closed"));
    };
    if (closing.aborted) {
      reject(new AnodeError("closed", "the client was closed"));
      return;
    }
    const timer = setTimeout(() => {
      closing.removeEventListener("abort", abort);
      resolve();
    }, waitMs);
    closing.addEventListener("abort", abort, { once: true });
  });
}
