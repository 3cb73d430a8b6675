/**
 * XML as strangers may send it to us, read into a small tree. The parser (saxes) is strict about well-formedness and
 * namespaces, and on top of that nothing is allowed that two parsers could see differently or that grows while it is
 * read: no DOCTYPE (so no entities), no comments, no CDATA, no processing instructions, bounded size, depth and count.
 *
 * What is decided about a message is decided by this tree; @xmldom/xmldom, which reads leniently, sees the text only
 * below the signature library, and what that has verified is read again by this one.
 */
import { SaxesParser, type SaxesTagNS } from 'saxes';

export interface XmlElement {
  namespace: string;
  /** Without prefix. */
  name: string;
  /** By local name, and by `{namespace}name` where there is a namespace; namespace declarations are left out. */
  attributes: ReadonlyMap<string, string>;
  children: readonly XmlElement[];
  /** All text directly below it, in order. */
  text: string;
}

export type XmlRead = { ok: true; root: XmlElement } | { ok: false; words: string };

export const MAX_DEPTH = 32;
const MAX_ELEMENTS = 20_000;
const MAX_ATTRIBUTES = 64;

class NotAllowed extends Error {}

interface Open extends XmlElement {
  children: XmlElement[];
}

export interface XmlAllowed {
  /** Comments and processing instructions are passed over, and text goes on behind them: of metadata, not of messages. */
  comments?: boolean;
}

/** @param text at most as long as the caller has checked */
export function readXml(text: string, allowed: XmlAllowed = {}): XmlRead {
  const parser = new SaxesParser({ xmlns: true, position: false });
  const open: Open[] = [];
  let root: XmlElement | undefined;
  let elements = 0;
  const refuse = (words: string) => (): never => {
    throw new NotAllowed(words);
  };
  parser.on('error', (error) => {
    throw new NotAllowed(`is not well-formed XML (${error.message.slice(0, 200)})`);
  });
  parser.on('doctype', refuse('has a document type declaration (DOCTYPE), which no SAML message has'));
  parser.on('cdata', refuse('has a CDATA section, where only elements and text may be'));
  if (!allowed.comments) {
    parser.on('comment', refuse('has a comment, where only elements and text may be'));
    parser.on('processinginstruction', refuse('has a processing instruction'));
  }
  parser.on('xmldecl', ({ version, encoding }) => {
    if (version !== '1.0') throw new NotAllowed('is not XML 1.0');
    if (encoding !== undefined && encoding.toLowerCase() !== 'utf-8') throw new NotAllowed('is not UTF-8');
  });
  parser.on('opentag', (tag: SaxesTagNS) => {
    elements += 1;
    if (elements > MAX_ELEMENTS) throw new NotAllowed(`has more than ${MAX_ELEMENTS} elements`);
    if (open.length >= MAX_DEPTH) throw new NotAllowed(`is nested deeper than ${MAX_DEPTH} elements`);
    const element: Open = {
      namespace: tag.uri,
      name: tag.local,
      attributes: attributesOf(tag),
      children: [],
      text: '',
    };
    open.at(-1)?.children.push(element);
    open.push(element);
  });
  parser.on('text', (part) => {
    const into = open.at(-1);
    if (into) into.text += part;
  });
  parser.on('closetag', () => {
    const closed = open.pop();
    if (open.length === 0) root = closed;
  });
  try {
    parser.write(text).close();
  } catch (error) {
    if (error instanceof NotAllowed) return { ok: false, words: error.message };
    throw error;
  }
  return root ? { ok: true, root } : { ok: false, words: 'is empty' };
}

function attributesOf(tag: SaxesTagNS): Map<string, string> {
  const all = Object.values(tag.attributes);
  if (all.length > MAX_ATTRIBUTES)
    throw new NotAllowed(`has an element with more than ${MAX_ATTRIBUTES} attributes`);
  const attributes = new Map<string, string>();
  for (const { prefix, local, name, uri, value } of all) {
    if (prefix === 'xmlns' || name === 'xmlns') continue;
    attributes.set(uri === '' ? local : `{${uri}}${local}`, value);
  }
  return attributes;
}

/** Every element, the root first. */
export function* everyElement(root: XmlElement): Generator<XmlElement> {
  yield root;
  for (const child of root.children) yield* everyElement(child);
}

export function childrenOf(parent: XmlElement, namespace: string, name: string): XmlElement[] {
  return parent.children.filter((c) => c.name === name && c.namespace === namespace);
}

/** The only child of that name; undefined when there is none or more than one. */
export function onlyChild(
  parent: XmlElement | undefined,
  namespace: string,
  name: string,
): XmlElement | undefined {
  const found = parent ? childrenOf(parent, namespace, name) : [];
  return found.length === 1 ? found[0] : undefined;
}

/** The trimmed text of an element that holds nothing but text. */
export function plainText(element: XmlElement | undefined): string | undefined {
  if (!element || element.children.length > 0) return undefined;
  const text = element.text.trim();
  return text === '' ? undefined : text;
}

/**
 * Whether two trees say the same, to the last blank. Prefixes do not matter, nor which line end it is: @xmldom/xmldom
 * writes a carriage return of a text as it is, and whoever reads that finds a line feed.
 */
export function sameElement(a: XmlElement, b: XmlElement): boolean {
  return (
    a.name === b.name &&
    a.namespace === b.namespace &&
    lineFeeds(a.text) === lineFeeds(b.text) &&
    a.attributes.size === b.attributes.size &&
    [...a.attributes].every(([name, value]) => b.attributes.get(name) === value) &&
    a.children.length === b.children.length &&
    a.children.every((child, i) => {
      const other = b.children[i];
      return other !== undefined && sameElement(child, other);
    })
  );
}

const lineFeeds = (text: string) => text.replaceAll(/\r\n?/g, '\n');
