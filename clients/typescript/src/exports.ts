/** What both kinds of platform export. */

export type { TokenSource } from "./access.js";
export { Client, type DeleteOptions, type PublishOptions, type SubscribeOptions } from "./client.js";
export { AnodeError } from "./errors.js";
export type { ConnectOptions } from "./options.js";
export type { Ack, AnodeRecord, AnodeRecord as Record, Level } from "./records.js";
export { Pages } from "./reads.js";
export { Subscription } from "./subscription.js";
