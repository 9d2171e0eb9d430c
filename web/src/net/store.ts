import { useEffect, useState } from "preact/hooks";

/** A value that tells those who watch it when it changes. */
export class Store<T> {
  #value: T;
  readonly #watchers = new Set<() => void>();

  constructor(value: T) {
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  set(value: T): void {
    if (value !== this.#value) {
      this.#value = value;
      for (const watcher of [...this.#watchers]) {
        watcher();
      }
    }
  }

  /** Changes some fields of a value that is an object. */
  patch(fields: Partial<T>): void {
    this.set({ ...this.#value, ...fields });
  }

  /** Calls `watcher` after each change, until the returned function is called. */
  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }
}

/**
 * The value of a store, in a component that is drawn again when it changes. The component begins to watch only after
 * it was drawn, so a change in between is looked for as well.
 */
export function useStore<T>(store: Store<T>): T {
  const [, redraw] = useState(0);
  const drawn = store.value;
  useEffect(() => {
    const watcher = (): void => redraw((count) => count + 1);
    if (store.value !== drawn) {
      watcher();
    }
    return store.watch(watcher);
  }, [store]);
  return store.value;
}
