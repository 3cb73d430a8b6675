/**
 * Okta's `filter` and `search`: comparisons of an attribute with a quoted value, `pr`, `and`, `or`, parentheses.
 * https://developer.okta.com/docs/api/#filter
 */

/** What an attribute of the thing is: a text, a time (milliseconds since 1970), or texts of which one must match. */
export type Values = (attribute: string) => string | number | readonly string[] | undefined;

/** @throws Error that says what was not understood, in Okta's words' place */
export function readExpression(text: string): (values: Values) => boolean {
  const words = scan(text);
  let at = 0;
  const end = (what: string): never => {
    throw new Error(`Invalid search criteria: ${what} in ${text}`);
  };
  const next = () => words[at++] ?? end('unexpected end');
  const found = either();
  if (at < words.length) end(`unexpected ${words[at]?.text}`);
  return found;

  function either(): (values: Values) => boolean {
    let left = both();
    while (words[at]?.text.toLowerCase() === 'or' && !words[at]?.quoted) {
      at += 1;
      const [a, b] = [left, both()];
      left = (values) => a(values) || b(values);
    }
    return left;
  }

  function both(): (values: Values) => boolean {
    let left = term();
    while (words[at]?.text.toLowerCase() === 'and' && !words[at]?.quoted) {
      at += 1;
      const [a, b] = [left, term()];
      left = (values) => a(values) && b(values);
    }
    return left;
  }

  function term(): (values: Values) => boolean {
    const word = next();
    if (word.text === '(' && !word.quoted) {
      const inner = either();
      if (next().text !== ')') end('a parenthesis is not closed');
      return inner;
    }
    const operator = next().text.toLowerCase();
    if (operator === 'pr') return (values) => values(word.text) !== undefined;
    const value = next();
    if (!value.quoted && !/^(true|false|[\d.]+)$/.test(value.text)) end(`${value.text} is not quoted`);
    const wanted = value.text.toLowerCase();
    const wantedAt = Date.parse(value.text);
    const test = comparison(operator) ?? end(`unknown operator ${operator}`);
    const compare = order(operator);
    return (values) => {
      const has = values(word.text);
      if (typeof has === 'number') return compare(has - wantedAt);
      return (typeof has === 'object' ? has : [has]).some(
        (one) => one !== undefined && test(one.toLowerCase(), wanted),
      );
    };
  }
}

function comparison(operator: string): ((has: string, wanted: string) => boolean) | undefined {
  switch (operator) {
    case 'sw':
      return (has, wanted) => has.startsWith(wanted);
    case 'co':
      return (has, wanted) => has.includes(wanted);
    case 'eq':
    case 'gt':
    case 'ge':
    case 'lt':
    case 'le': {
      const compare = order(operator);
      return (has, wanted) => compare(has < wanted ? -1 : has > wanted ? 1 : 0);
    }
    default:
      return undefined;
  }
}

/** Of a difference; what has no order never holds. */
function order(operator: string): (difference: number) => boolean {
  switch (operator) {
    case 'eq':
      return (d) => d === 0;
    case 'gt':
      return (d) => d > 0;
    case 'ge':
      return (d) => d >= 0;
    case 'lt':
      return (d) => d < 0;
    case 'le':
      return (d) => d <= 0;
    default:
      return () => false;
  }
}

interface Word {
  text: string;
  quoted: boolean;
}

function scan(text: string): Word[] {
  const words: Word[] = [];
  for (let at = 0; at < text.length; ) {
    const char = text.charAt(at);
    if (char === ' ') at += 1;
    else if (char === '(' || char === ')') {
      words.push({ text: char, quoted: false });
      at += 1;
    } else if (char === '"') {
      let value = '';
      for (at += 1; text.charAt(at) !== '"'; at += 1) {
        if (at >= text.length) throw new Error(`Invalid search criteria: a quote is not closed in ${text}`);
        if (text.charAt(at) === '\\') at += 1;
        value += text.charAt(at);
      }
      at += 1;
      words.push({ text: value, quoted: true });
    } else {
      const from = at;
      while (at < text.length && !' ()"'.includes(text.charAt(at))) at += 1;
      words.push({ text: text.slice(from, at), quoted: false });
    }
  }
  return words;
}
