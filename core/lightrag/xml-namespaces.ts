import { isPlainName } from './xml-names.ts';

const XML = 'http://www.w3.org/XML/1998/namespace';
const XMLNS = 'http://www.w3.org/2000/xmlns/';

/** Bindings that one element declares, and the ones that they hide. */
interface Scope {
  readonly depth: number;
  readonly hidden: ReadonlyMap<string, string | undefined>;
}

/** Splits a name at its colon. Returns undefined if a part of it is no name. */
export function nameParts(name: string): readonly [prefix: string, local: string] | undefined {
  const at = name.indexOf(':');
  const [prefix, local] = at < 0 ? ['', name] : [name.slice(0, at), name.slice(at + 1)];
  return isPlainName(local) && (at < 0 || isPlainName(prefix)) ? [prefix, local] : undefined;
}

/** The namespaces in force while a document is read. */
export class Namespaces {
  readonly #bindings = new Map<string, string>([['xml', XML]]);
  readonly #scopes: Scope[] = [];
  #depth = 0;

  /** The namespace of elements without a prefix; empty for none. */
  get default(): string {
    return this.#bindings.get('') ?? '';
  }

  /** Returns the namespace of a prefix; undefined if it is not bound. */
  uriOf(prefix: string): string | undefined {
    return prefix === '' ? this.default : this.#bindings.get(prefix);
  }

  /** Binds the prefixes that an element declares. Returns what is wrong with them, or undefined. */
  enter(depth: number, declared: ReadonlyMap<string, string>): string | undefined {
    const hidden = new Map<string, string | undefined>();
    for (const [prefix, uri] of declared) {
      const flaw = bindingFlaw(prefix, uri);
      if (flaw !== undefined) return flaw;
      hidden.set(prefix, this.#bindings.get(prefix));
      this.#bindings.set(prefix, uri);
    }
    this.#scopes.push({ depth, hidden });
    this.#depth = depth;
    return undefined;
  }

  /** Depth of the innermost element that was entered; 0 without one. */
  get depth(): number {
    return this.#depth;
  }

  /** Ends the bindings of the innermost element. */
  leave(): void {
    for (const [prefix, uri] of this.#scopes.pop()?.hidden ?? []) {
      if (uri === undefined) this.#bindings.delete(prefix);
      else this.#bindings.set(prefix, uri);
    }
    this.#depth = this.#scopes.at(-1)?.depth ?? 0;
  }
}

function bindingFlaw(prefix: string, uri: string): string | undefined {
  if (prefix === 'xmlns') return 'the prefix "xmlns" must not be bound';
  if (prefix !== '' && uri === '') return `the prefix "${prefix}" is bound to nothing`;
  if ((prefix === 'xml') !== (uri === XML) || uri === XMLNS)
    return `the prefix "${prefix}" is bound to a reserved namespace`;
  // Python separates namespaces from names by this character.
  return uri.includes('}') ? 'the name of a namespace contains "}"' : undefined;
}
