// The page: navigation, theme, time zone, sign-in, and one of the views.
import { Fragment, render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { authorization, onUnauthorized, tenant } from "./api";
import { CardinalityView } from "./cardinality";
import { ClusterView } from "./cluster";
import { Dialog } from "./dialog";
import { addressOf, go, isUtc, setUtc, usePlace, VIEWS, type View } from "./location";
import { isTyping, QueryView } from "./query";
import { applyTheme, setTheme, useTheme } from "./settings";
import { SignIn } from "./signin";
import { StatusView } from "./status";

const NAMES: Record<View, string> = { query: "Query", cardinality: "Cardinality", cluster: "Cluster", status: "Status" };
const SHORTCUTS: [string, string][] = [
  ["/", "into the first expression"],
  ["Enter", "run"],
  ["Shift Enter", "a new line in the expression"],
  ["Ctrl Space", "what could stand here"],
  ["← →", "move the cursor in a chart that has the focus"],
  ["Shift click", "a series of the legend alone"],
  ["1 … 4", "to a view"],
  ["t", "light or dark"],
  ["u", "UTC or local time"],
  ["?", "this list"],
];

function App() {
  const place = usePlace();
  const utc = isUtc(place.parameters);
  const { isDark } = useTheme();
  const [asking, setAsking] = useState<"" | "needed" | "wanted">("");
  const [isHelpOpen, setHelpOpen] = useState(false);
  const [session, setSession] = useState(0);
  const waiting = useRef<((changed: boolean) => void)[]>([]);

  useEffect(() => {
    onUnauthorized(
      () =>
        new Promise((resolve) => {
          waiting.current.push(resolve);
          setAsking("needed");
        }),
    );
  }, []);
  useEffect(() => {
    document.title = `${NAMES[place.view]} · Tabor`;
  }, [place.view]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (isTyping(event) || document.querySelector("dialog[open]")) return;
      const view = VIEWS[Number(event.key) - 1];
      if (view) go(addressOf(view));
      else if (event.key === "t") setTheme(isDark ? "light" : "dark");
      else if (event.key === "u") setUtc(!utc);
      else if (event.key === "?") setHelpOpen(true);
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [isDark, utc]);

  const answered = (changed: boolean) => {
    setAsking("");
    const resolvers = waiting.current.splice(0);
    for (const resolve of resolvers) resolve(changed);
    // Everything is asked anew for whoever it is now; what waited goes on by itself.
    if (changed && !resolvers.length) setSession((n) => n + 1);
  };
  const follow = (event: MouseEvent, view: View) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(addressOf(view));
  };
  return (
    <>
      <a class="skip" href="#main">
        To the content
      </a>
      <header class="bar">
        <a class="brand" href="./" onClick={(event) => follow(event, "query")}>
          <img src="static/icon.svg" alt="" width="22" height="22" /> Tabor
        </a>
        <nav aria-label="Views">
          {VIEWS.map((view) => (
            <a key={view} href={addressOf(view)} aria-current={place.view === view ? "page" : undefined} onClick={(event) => follow(event, view)}>
              {NAMES[view]}
            </a>
          ))}
        </nav>
        <span class="spacer" />
        <div class="tools">
          <button class="icon" onClick={() => setUtc(!utc)} title="Time zone (u)" aria-label={`Times are ${utc ? "UTC" : "local"}; change`}>
            {utc ? "UTC" : "local"}
          </button>
          <button class="icon" onClick={() => setTheme(isDark ? "light" : "dark")} title="Light or dark (t)" aria-label={isDark ? "Light theme" : "Dark theme"}>
            {isDark ? "☀" : "☾"}
          </button>
          <button class="icon" onClick={() => setHelpOpen(true)} title="Keys (?)" aria-label="Keys">
            ?
          </button>
          <button class="icon" onClick={() => setAsking("wanted")} title="Credentials and tenant">
            {tenant.get() || (authorization.get() ? "signed in" : "sign in")}
          </button>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <Fragment key={session}>
          {place.view === "query" && <QueryView />}
          {place.view === "cardinality" && <CardinalityView />}
          {place.view === "cluster" && <ClusterView />}
          {place.view === "status" && <StatusView />}
        </Fragment>
      </main>
      {asking && <SignIn key={asking} isNeeded={asking === "needed"} onDone={answered} />}
      {isHelpOpen && (
        <Dialog title="Keys" onClose={() => setHelpOpen(false)}>
          <dl class="keys">
            {SHORTCUTS.map(([keys, what]) => (
              <Fragment key={keys}>
                <dt>
                  <kbd>{keys}</kbd>
                </dt>
                <dd>{what}</dd>
              </Fragment>
            ))}
          </dl>
        </Dialog>
      )}
    </>
  );
}

applyTheme();
const root = document.getElementById("app")!;
root.replaceChildren();
render(<App />, root);
