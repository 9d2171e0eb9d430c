import type { ComponentChildren } from "preact";

/** One figure with its unit, its course and what it means. */
export function Readout(props: {
  label: string;
  value: string;
  unit?: string;
  note?: string;
  tone?: "" | "good" | "warn" | "bad";
  children?: ComponentChildren;
}) {
  return (
    <div class={`readout ${props.tone ?? ""}`}>
      <dt>{props.label}</dt>
      <dd>
        <span class="figure">{props.value}</span>
        {props.unit !== undefined && <span class="unit">{props.unit}</span>}
        {props.children}
        {props.note !== undefined && <span class="note">{props.note}</span>}
      </dd>
    </div>
  );
}

/** A choice of a few, drawn as a row of buttons. */
export function Choice<T extends string>(props: {
  label: string;
  options: readonly (readonly [T, string])[];
  value: T;
  onChange: (value: T) => void;
}) {
  return (
    <div class="choice" role="group" aria-label={props.label}>
      {props.options.map(([value, text]) => (
        <button key={value} type="button" aria-pressed={value === props.value} onClick={() => props.onChange(value)}>
          {text}
        </button>
      ))}
    </div>
  );
}

/** Part of a view, with a heading. */
export function Panel(props: { title: string; class?: string; aside?: ComponentChildren; children: ComponentChildren }) {
  return (
    <section class={`panel ${props.class ?? ""}`}>
      <header>
        <h2>{props.title}</h2>
        {props.aside}
      </header>
      {props.children}
    </section>
  );
}

/** What is said where there is nothing to show. */
export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}
