import { Store } from "../net/store";

export type Theme = "system" | "light" | "dark";

const KEY = "anode.theme";

function isTheme(text: string | null): text is Theme {
  return text === "system" || text === "light" || text === "dark";
}

export const theme = new Store<Theme>("system");

/** Takes the theme that was chosen at an earlier visit, or the one that the page before has handed over. */
export function restoreTheme(handed: string | null): void {
  let kept: string | null = null;
  try {
    kept = localStorage.getItem(KEY);
  } catch {
    // Without storage the page looks as the system does.
  }
  apply(isTheme(handed) ? handed : isTheme(kept) ? kept : "system");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawn);
}

/** Increased when colours have changed, so that plots are drawn anew. */
export const colours = new Store(0);

function redrawn(): void {
  colours.set(colours.value + 1);
}

export function apply(chosen: Theme): void {
  if (chosen === "system") {
    delete document.documentElement.dataset["theme"];
  } else {
    document.documentElement.dataset["theme"] = chosen;
  }
  try {
    localStorage.setItem(KEY, chosen);
  } catch {
    // It lasts until the page is loaded again.
  }
  theme.set(chosen);
  redrawn();
}

/** A colour of the style sheet, as it is now. */
export function colour(name: string): string {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
