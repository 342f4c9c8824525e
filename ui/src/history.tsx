import { useState } from "preact/hooks";
import { Dialog } from "./dialog";
import { forgetAll, history } from "./settings";

export function HistoryDialog({ onTake, onClose }: { onTake: (expression: string) => void; onClose: () => void }) {
  const [filter, setFilter] = useState("");
  const all = history();
  const found = all.filter((expression) => expression.toLowerCase().includes(filter.toLowerCase()));
  return (
    <Dialog title="History" onClose={onClose}>
      {all.length ? (
        <>
          <input type="search" placeholder="filter" aria-label="Filter the history" value={filter} autofocus onInput={(event) => setFilter(event.currentTarget.value)} />
          <ul class="history">
            {found.map((expression) => (
              <li key={expression}>
                <button onClick={() => onTake(expression)}>
                  <code>{expression}</code>
                </button>
              </li>
            ))}
          </ul>
          <button
            class="small"
            onClick={() => {
              forgetAll();
              onClose();
            }}
          >
            Forget all
          </button>
        </>
      ) : (
        <p class="empty">Expressions that you run are kept in this browser.</p>
      )}
    </Dialog>
  );
}
