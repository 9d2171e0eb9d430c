import { useEffect, useRef, useState } from "preact/hooks";
import { link } from "../app";
import { ask, problemOf } from "../net/api";
import { auth, useToken } from "../net/auth";
import { useStore } from "../net/store";

/** Asks for a token, and tries it before it is kept. */
export function Login() {
  const { reason } = useStore(auth);
  const { host } = useStore(link.state);
  const dialog = useRef<HTMLDialogElement>(null);
  const [trouble, setTrouble] = useState("");
  const [isTrying, setTrying] = useState(false);

  useEffect(() => dialog.current?.showModal(), []);

  const leave = (): void => {
    auth.patch({ isAsking: false });
  };
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const token = String(new FormData(event.currentTarget as HTMLFormElement).get("token") ?? "").trim();
    if (token === "" || !/^[\x21-\x7e]+$/.test(token)) {
      setTrouble("A token has letters, digits and signs without spaces.");
      return;
    }
    setTrying(true);
    try {
      const answer = await ask(host, "/v1/members", {}, token);
      // A token that may not observe is known, too.
      if (answer.status === 200 || answer.status === 403) {
        useToken(token);
        link.restart();
        return;
      }
      const problem = problemOf(answer);
      setTrouble(problem.status === 401 ? "The node does not know this token, or it has expired." : problem.message);
    } catch (error) {
      setTrouble(error instanceof Error ? error.message : String(error));
    } finally {
      setTrying(false);
    }
  };

  return (
    <dialog ref={dialog} class="login" aria-labelledby="login-title" onClose={leave}>
      <form onSubmit={(event) => void submit(event)}>
        <h2 id="login-title">Sign in</h2>
        <p>
          {reason} The token is kept for this tab alone, and sent to <span class="address">{host}</span> and to members of its cluster.
        </p>
        <label>
          Token
          <input name="token" type="password" autocomplete="off" spellcheck={false} autofocus aria-describedby="login-trouble" />
        </label>
        <p id="login-trouble" class="trouble" role="alert">
          {trouble}
        </p>
        <div class="actions">
          <button type="submit" class="primary" disabled={isTrying}>
            {isTrying ? "Trying…" : "Sign in"}
          </button>
          <button type="button" onClick={() => dialog.current?.close()}>
            Go on without
          </button>
        </div>
      </form>
    </dialog>
  );
}
