import { Store } from "./store";

/** The token is kept for this tab alone, and is gone when the tab is closed. It never stands in a URL. */
const KEY = "anode.token";

export interface Auth {
  token: string | null;
  /** Whether the login is shown. */
  isAsking: boolean;
  /** Why the login is shown. */
  reason: string;
}

function kept(): string | null {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

export const auth = new Store<Auth>({ token: kept(), isAsking: false, reason: "" });

export function useToken(token: string | null): void {
  try {
    if (token === null) {
      sessionStorage.removeItem(KEY);
    } else {
      sessionStorage.setItem(KEY, token);
    }
  } catch {
    // Without storage the token lasts until the page is loaded again.
  }
  auth.set({ token, isAsking: false, reason: "" });
}

export function askForToken(reason: string): void {
  if (!auth.value.isAsking) {
    auth.patch({ isAsking: true, reason });
  }
}

/** The subprotocols of a WebSocket: browsers cannot set the header `Authorization` there. */
export function subprotocols(token = auth.value.token): string[] {
  const bytes = new TextEncoder().encode(token ?? "");
  const base64url = btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
  return token === null ? ["anode.v1.json"] : ["anode.v1.json", `anode.token.${base64url}`];
}

export function authorization(token = auth.value.token): Record<string, string> {
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}
