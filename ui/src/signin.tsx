// Who asks: a token, or a user and his password, kept until the tab is closed; and for which tenant.
import { useState } from "preact/hooks";
import { authorization, tenant } from "./api";
import { Dialog } from "./dialog";

function basic(user: string, password: string): string {
  const bytes = new TextEncoder().encode(`${user}:${password}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}

/** onDone(true): there are new credentials, or another tenant. */
export function SignIn({ isNeeded, onDone }: { isNeeded: boolean; onDone: (changed: boolean) => void }) {
  const [kind, setKind] = useState<"token" | "user">("token");
  const [token, setToken] = useState("");
  const [user, setUser] = useState("");
  const [password, setPassword] = useState("");
  const [forTenant, setTenant] = useState(tenant.get());
  const wasRefused = isNeeded && authorization.get() !== "";
  const submit = (event: Event) => {
    event.preventDefault();
    if (kind === "token" ? token : user) authorization.set(kind === "token" ? `Bearer ${token.trim()}` : basic(user, password));
    tenant.set(forTenant.trim());
    onDone(true);
  };
  const signOut = () => {
    authorization.set("");
    tenant.set("");
    onDone(true);
  };
  return (
    <Dialog title="Sign in" onClose={() => onDone(false)}>
      <form onSubmit={submit} class="form">
        {wasRefused && (
          <p class="note bad" role="alert">
            The server refused these credentials.
          </p>
        )}
        <div class="tabs" role="group" aria-label="Credentials">
          <button type="button" aria-pressed={kind === "token"} onClick={() => setKind("token")}>
            Token
          </button>
          <button type="button" aria-pressed={kind === "user"} onClick={() => setKind("user")}>
            User and password
          </button>
        </div>
        {kind === "token" ? (
          <label>
            Token
            <input type="password" autocomplete="off" value={token} autofocus onInput={(event) => setToken(event.currentTarget.value)} />
          </label>
        ) : (
          <>
            <label>
              User
              <input autocomplete="username" value={user} autofocus onInput={(event) => setUser(event.currentTarget.value)} />
            </label>
            <label>
              Password
              <input type="password" autocomplete="current-password" value={password} onInput={(event) => setPassword(event.currentTarget.value)} />
            </label>
          </>
        )}
        <label>
          Tenant <span class="muted">(X-Scope-OrgID; empty unless the server has tenants)</span>
          <input autocomplete="off" value={forTenant} onInput={(event) => setTenant(event.currentTarget.value)} />
        </label>
        <div class="row">
          <button class="primary" type="submit">
            Use these
          </button>
          {(authorization.get() || tenant.get()) && (
            <button type="button" onClick={signOut}>
              Sign out
            </button>
          )}
        </div>
        <p class="muted">Kept until this tab is closed, and sent to this server only.</p>
      </form>
    </Dialog>
  );
}
