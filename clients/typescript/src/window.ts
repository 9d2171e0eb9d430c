/** The bound of what is published and not answered yet. */

interface Place {
  readonly size: number;
  admit(isAdmitted: boolean): void;
}

/** Room for a number of records and a number of characters. Who finds no room waits, in the order of arrival. */
export class Window {
  private usedRecords = 0;
  private used = 0;
  private waiting: Place[] = [];

  constructor(
    private readonly records: number,
    private readonly size: number,
  ) {}

  /** Takes room for a record of this size; one that is larger than the whole bound gets all of it. False if late. */
  async enter(size: number, timeoutMs: number): Promise<boolean> {
    if (this.waiting.length === 0 && this.fits(size)) {
      this.take(size);
      return true;
    }
    return new Promise((resolve) => {
      const place: Place = {
        size,
        admit: (isAdmitted) => {
          clearTimeout(timer);
          resolve(isAdmitted);
        },
      };
      const timer = setTimeout(() => {
        this.waiting = this.waiting.filter((other) => other !== place);
        place.admit(false);
        this.admit();
      }, timeoutMs);
      this.waiting.push(place);
    });
  }

  /** Gives the room of a record back. */
  leave(size: number): void {
    this.usedRecords -= 1;
    this.used -= size;
    this.admit();
  }

  private fits(size: number): boolean {
    return this.usedRecords === 0 || (this.usedRecords < this.records && this.used + size <= this.size);
  }

  private take(size: number): void {
    this.usedRecords += 1;
    this.used += size;
  }

  private admit(): void {
    for (let place = this.waiting[0]; place !== undefined && this.fits(place.size); place = this.waiting[0]) {
      this.waiting.shift();
      this.take(place.size);
      place.admit(true);
    }
  }
}
