/** Which records a subscription has delivered, so that none comes twice or out of order after it was resumed. */

/** Deleted sources, and those that are gone, that are remembered, in each of two generations. */
export const DELETED_MAX = 65_536;

interface Mark {
  ts: number;
  deleted: boolean;
  dataHash: number;
}

/** The newest record of every source, as far as it must be known. */
export class Seen {
  private readonly live = new Map<string, Mark>();
  private deleted = new Map<string, Mark>();
  private deletedBefore = new Map<string, Mark>();

  /**
   * Returns whether the record is to be delivered, and remembers it if so.
   *
   * Of two records with the same timestamp a node sends the winner last, so a second one with other data is new.
   */
  admit(source: string, ts: number, deleted: boolean, dataHash: number, gone = false): boolean {
    const known = this.live.get(source) ?? this.deleted.get(source) ?? this.deletedBefore.get(source);
    if (known !== undefined) {
      const isOlder = ts < known.ts || (ts === known.ts && known.deleted && !deleted);
      if (isOlder || (ts === known.ts && deleted === known.deleted && dataHash === known.dataHash)) {
        return false;
      }
    }
    const mark = { ts, deleted, dataHash };
    if (!deleted && !gone) {
      this.deleted.delete(source);
      this.live.set(source, mark);
      return true;
    }
    this.live.delete(source);
    this.deleted.set(source, mark);
    if (this.deleted.size > DELETED_MAX) {
      this.deletedBefore = this.deleted;
      this.deleted = new Map();
    }
    return true;
  }

  /** Forgets everything: the state begins anew. */
  forget(): void {
    this.live.clear();
    this.deleted.clear();
    this.deletedBefore.clear();
  }
}

/** Returns a hash of 53 bits of the text, from two multiplicative hashes of 32 bits. */
export function textHash(text: string): number {
  let low = 0x9e3779b9;
  let high = 0x85ebca6b;
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    low = Math.imul(low ^ unit, 0x01000193);
    high = Math.imul(high + unit, 0x5bd1e995);
    high ^= high >>> 15;
  }
  return (high >>> 0) * 0x200000 + ((low >>> 0) >>> 11);
}
