import { Store } from "../net/store";

export interface Place {
  view: string;
  /** What the view shows, such as the name of a source. */
  item: string;
  query: URLSearchParams;
}

/** The place stands behind the `#` of the URL, so that it survives a move to another node and can be kept as a bookmark. */
function read(): Place {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [view = "", ...rest] = path.split("/");
  return { view: view === "" ? "cluster" : view, item: rest.map(decode).join("/"), query: new URLSearchParams(query) };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const place = new Store<Place>(read());

export function followHash(): void {
  addEventListener("hashchange", () => place.set(read()));
}

export function hrefOf(view: string, item = ""): string {
  const encoded = item.split("/").map(encodeURIComponent).join("/");
  return `#/${view}${item === "" ? "" : `/${encoded}`}`;
}

export function go(view: string, item = ""): void {
  location.hash = hrefOf(view, item);
}

/** Moves the whole page to another node, which serves the same page. It says there where it came from. */
export function moveTo(host: string, from: string, theme: string): void {
  const { view, item } = place.value;
  const query = new URLSearchParams({ from, theme });
  location.replace(`${location.protocol}//${host}/${hrefOf(view, item)}?${query}`);
}
