import type { AnodeRecord } from "../net/types";

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function whole(value: number): string {
  return WHOLE.format(value);
}

/** A number with three digits that count, and a letter for thousands: `1.24 k`. */
export function short(value: number | null): string {
  if (value === null) {
    return "–";
  }
  const size = Math.abs(value);
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]] as const) {
    if (size >= unit * 9.995) {
      return `${digits(value / unit)}${letter}`;
    }
  }
  return size >= 1_000 ? whole(value) : digits(value);
}

function digits(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(Number.isInteger(value) || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

export function bytes(value: number): string {
  for (const [unit, name] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]] as const) {
    if (value >= unit) {
      return `${digits(value / unit)} ${name}`;
    }
  }
  return `${value} B`;
}

/** A duration, given in seconds. */
export function duration(seconds: number | null): string {
  if (seconds === null) {
    return "–";
  }
  if (seconds < 0.001) {
    return `${digits(seconds * 1e6)} µs`;
  }
  if (seconds < 1) {
    return `${digits(seconds * 1e3)} ms`;
  }
  if (seconds < 120) {
    return `${digits(seconds)} s`;
  }
  const [days, hours, minutes] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3_600) % 24, Math.floor(seconds / 60) % 60];
  return days > 0 ? `${days} d ${hours} h` : hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min`;
}

/** A duration that is a bound, without zeros that say nothing. */
export function bound(seconds: number): string {
  return duration(seconds).replace(/(\.\d*?)0+ /, "$1 ");
}

function two(value: number, length = 2): string {
  return String(value).padStart(length, "0");
}

/** The time of the day of a timestamp in microseconds, to the millisecond. */
export function clock(ts: number): string {
  const date = new Date(ts / 1_000);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${two(date.getMilliseconds(), 3)}`;
}

/** The date and time of a timestamp in microseconds. */
export function moment(ts: number): string {
  const date = new Date(ts / 1_000);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(ts)}`;
}

/** The value of a record on one line. */
export function valueOf(record: AnodeRecord): string {
  if (record.deleted) {
    return "deleted";
  }
  if (record.data_b64 !== undefined) {
    return `base64 ${record.data_b64}`;
  }
  return JSON.stringify(record.data).slice(0, 400);
}
