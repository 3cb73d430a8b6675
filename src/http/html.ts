/** HTML that cannot forget to escape: values in `html` templates are escaped, fragments made by it are not. */

/** A piece of markup. Only {@link html} and {@link join} make one. */
export class Fragment {
  readonly markup: string;
  constructor(markup: string) {
    this.markup = markup;
  }
}

type Value = Fragment | string | number | null | undefined | false | readonly Fragment[];

export function html(parts: TemplateStringsArray, ...values: Value[]): Fragment {
  let markup = parts[0] ?? '';
  values.forEach((value, i) => {
    markup += render(value) + (parts[i + 1] ?? '');
  });
  return new Fragment(markup);
}

function render(value: Value): string {
  if (value === null || value === undefined || value === false) return '';
  if (value instanceof Fragment) return value.markup;
  if (typeof value === 'string' || typeof value === 'number') return escaped(String(value));
  return value.map((fragment) => fragment.markup).join('');
}

const ENTITIES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '');
}
