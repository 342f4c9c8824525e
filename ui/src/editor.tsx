// The expression editor. It lives in a shadow root, where CodeMirror's styles are constructed style sheets, which the
// page's Content-Security-Policy lets through without 'unsafe-inline' or a nonce.
import { acceptCompletion, autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap, startCompletion } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, insertNewlineAndIndent } from "@codemirror/commands";
import { bracketMatching, HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { lintKeymap, setDiagnostics } from "@codemirror/lint";
import { EditorState, Prec } from "@codemirror/state";
import { EditorView, keymap, placeholder } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { useEffect, useRef, useState } from "preact/hooks";
import { helpAt, locate, promql, type Help } from "./promql";

const colours = HighlightStyle.define([
  { tag: tags.function(tags.variableName), color: "var(--code-function)" },
  { tag: tags.keyword, color: "var(--code-keyword)" },
  { tag: tags.modifier, color: "var(--code-keyword)" },
  { tag: tags.labelName, color: "var(--code-label)" },
  { tag: tags.string, color: "var(--code-string)" },
  { tag: tags.number, color: "var(--code-number)" },
  { tag: tags.operatorKeyword, color: "var(--code-keyword)" },
  { tag: tags.operator, color: "var(--code-keyword)" },
  { tag: tags.comment, color: "var(--muted)", fontStyle: "italic" },
]);

const MONO = "ui-monospace, 'SF Mono', 'Cascadia Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace";

const theme = EditorView.theme({
  "&": { color: "var(--text)", fontSize: "14px" },
  "&.cm-focused": { outline: "none" },
  ".cm-content": { fontFamily: MONO, caretColor: "var(--text)", padding: "9px 0" },
  ".cm-line": { padding: "0 10px" },
  ".cm-scroller": { lineHeight: "1.5", maxHeight: "12em", overflow: "auto" },
  ".cm-placeholder": { color: "var(--muted)" },
  ".cm-matchingBracket, &.cm-focused .cm-matchingBracket": { background: "var(--select)", outline: "1px solid var(--line-strong)" },
  ".cm-nonmatchingBracket, &.cm-focused .cm-nonmatchingBracket": { background: "transparent", color: "var(--bad)" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  ".cm-lintRange-error": { backgroundImage: "none", textDecoration: "underline wavy var(--bad)", textUnderlineOffset: "3px", textDecorationThickness: "1.5px", textDecorationSkipInk: "none", backgroundColor: "var(--bad-soft)" },
  ".cm-tooltip": { background: "var(--raised)", color: "var(--text)", border: "1px solid var(--line-strong)", borderRadius: "6px", boxShadow: "var(--shadow)" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul": { fontFamily: MONO, fontSize: "13px", maxHeight: "16em", maxWidth: "min(38em, 92vw)" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li": { padding: "3px 8px" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { background: "var(--accent)", color: "var(--on-accent)" },
  ".cm-completionDetail": { fontStyle: "normal", opacity: "0.75", fontSize: "12px" },
  ".cm-completionMatchedText": { textDecoration: "none", fontWeight: "700" },
  ".cm-completionIcon": { display: "none" },
  ".cm-tooltip.cm-completionInfo": { padding: "6px 10px", maxWidth: "24em", fontSize: "13px" },
  ".tabor-hover": { padding: "6px 10px", maxWidth: "32em", fontSize: "13px" },
  ".cm-diagnostic-error": { borderLeft: "4px solid var(--bad)" },
});

interface Props {
  /** What stands there at first, and again whenever this changes; not what is typed. */
  value: string;
  label: string;
  /** What the server said of the expression that was run, if it refused it. */
  error?: string;
  onChange: (value: string) => void;
  onRun: () => void;
  /** Told the view, so that others may put the cursor into it. */
  onView?: (view: EditorView | undefined) => void;
}

export function Editor({ value, label, error, onChange, onRun, onView }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | undefined>(undefined);
  const [help, setHelp] = useState<Help>();
  const handlers = useRef({ onChange, onRun });
  handlers.current = { onChange, onRun };

  useEffect(() => {
    const root = host.current!.shadowRoot ?? host.current!.attachShadow({ mode: "open" });
    const made = new EditorView({
      root,
      parent: root,
      state: EditorState.create({
        doc: value,
        extensions: [
          // Enter takes a completion where a list is open, else it runs; before the keys of the list's own.
          Prec.highest(
            keymap.of([
              { key: "Enter", run: (editor) => acceptCompletion(editor) || (handlers.current.onRun(), true) },
              { key: "Mod-Enter", run: () => (handlers.current.onRun(), true) },
              { key: "Shift-Enter", run: insertNewlineAndIndent },
              { key: "Mod-Space", run: startCompletion },
            ]),
          ),
          history(),
          closeBrackets(),
          bracketMatching(),
          autocompletion({ icons: false }),
          promql(),
          syntaxHighlighting(colours),
          theme,
          EditorView.lineWrapping,
          placeholder("An expression, such as sum by (job) (rate(http_requests_total[5m]))"),
          EditorView.contentAttributes.of({ "aria-label": label, spellcheck: "false", autocapitalize: "off" }),
          keymap.of([...closeBracketsKeymap, ...defaultKeymap, ...historyKeymap, ...completionKeymap, ...lintKeymap]),
          EditorView.updateListener.of((update) => {
            if (update.docChanged) handlers.current.onChange(update.state.doc.toString());
            if (update.docChanged || update.selectionSet || update.focusChanged) {
              setHelp(update.view.hasFocus ? helpAt(update.state) : undefined);
            }
          }),
        ],
      }),
    });
    view.current = made;
    onView?.(made);
    return () => {
      onView?.(undefined);
      made.destroy();
    };
  }, []);

  useEffect(() => {
    const made = view.current;
    if (made && made.state.doc.toString() !== value) {
      made.dispatch({ changes: { from: 0, to: made.state.doc.length, insert: value } });
    }
  }, [value]);

  useEffect(() => {
    const made = view.current;
    if (made && error?.includes("parse error:")) {
      made.dispatch(setDiagnostics(made.state, [locate(made.state.doc.toString(), error)]));
    }
  }, [error]);

  return (
    <div class="editor">
      <div class="editor-host" ref={host} />
      <div class="signature" aria-live="polite">
        {help && (
          <>
            <code>
              {help.name}(
              {help.parts.map((part, i) => (
                <>
                  {i > 0 && ", "}
                  {i === help.argument ? <mark>{part}</mark> : part}
                </>
              ))}
              ) → {help.returns}
            </code>{" "}
            <span class="muted">{help.info}</span>
          </>
        )}
      </div>
    </div>
  );
}
